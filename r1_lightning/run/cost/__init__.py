"""Estimates the cost of a stage before it runs: memory, tokens, FLOPs and seconds.

dry_run         the lines that `dry_run=true` prints
stage_cost      counts memory, tokens and FLOPs, for the kinds of data in counted; probe measures seconds
model_sizes     parameters and caches of the published models in configs/model
"""
