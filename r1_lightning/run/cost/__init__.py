"""Estimates the cost of a stage before it runs: memory, tokens, FLOPs and seconds, and whether it fits.

dry_run         the lines that `dry_run=true` prints; verdict adds whether it fits a machine, and what to change; sharing says what
                one of several devices holds
stage_cost      counts memory, tokens and FLOPs of a stage that trains; sampling_cost those of stages that only sample
networks        what a network costs, ours or transformers'; beside makes a stage's other models, without memory
logits          the memory of a loss, by the class of the stage; value_model what PPO's value model adds
load            the size of a step; counted has the kinds of data that are counted, with counted_rows for those that are rows
probe           measures seconds
model_sizes     parameters and caches of the published models in configs/model
scaling_plan    N, D, loss and cost for a budget, by scaling laws; published_laws has their constants, gpus the rates of GPUs
plan_pipeline   pipeline schedules beside the formulas of DeepSeek-V3, and memory and communication of a published model on many
                GPUs: cluster has the arithmetic, cluster_report the lines
"""
