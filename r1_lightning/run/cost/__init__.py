"""What a stage would take before it runs: memory, tokens, FLOPs and seconds.

dry_run         the lines that `dry_run=true` prints
stage_cost      what can be counted, by the kinds of data in counted; probe measures the seconds of two small steps
model_sizes     the published models of configs/model, counted
"""
