"""Asking a trained model: benchmarks, their metrics with intervals, and the tables printed at the end."""
