"""Reward functions: each maps one completion of one problem to a score and a reason; a learned score comes in as a Scorer.

This folder holds the rewards that configs name. `equality` compares answers, `verifiers` judges them in processes that can be
killed, `sandbox` runs model-written programs.
"""
