"""Reward functions: one completion of one problem in, a score and a reason out; a learned score is a Scorer."""
