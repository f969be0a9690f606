"""Reward functions: one completion of one problem in, a score and its reason out; a learned score comes in as a Scorer."""
