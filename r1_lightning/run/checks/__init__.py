"""Refusals before anything is made: each value against what takes it, and the rules between groups. Each ends in one line.

declared        names and plain types against the text of our classes, without torch
validate        each value against what takes it; stored_config does the same for a file from anywhere
rules           between groups; rewards, models, tasks and loggers hold those of one subject
evaluation      how a stage's result is measured, and whether that fits the model
"""
