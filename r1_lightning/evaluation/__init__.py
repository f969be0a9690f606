"""Evaluation of trained models: benchmarks, their metrics with intervals, and the tables printed at the end."""
