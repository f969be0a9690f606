"""Checks of a configuration before anything is made: each value against its target, and rules between groups. Errors are one line.

declared        names and plain types against the source of our classes, without torch
validate        each value against its target; stored_config does the same for a configuration file from anywhere
rules           rules between groups; rewards, models, tasks, processes and loggers hold those of one subject
evaluation      a stage's evaluation settings, and whether they fit the model
"""
