"""Builds objects from configurations: models with their weights, tokenizers, samplers, rewards, teachers, judges.

parts           every object that a stage, its data module or its callbacks ask for by name
device          where a stage works, and in which type: one place decides
models          a backbone of any kind, with its initial weights
stored          the model in any folder: an artefact or a HuggingFace checkpoint
templates       the chat template, ours or a checkpoint's own
hf_import       HuggingFace folders as inputs
reward_models, teachers, judges   other models as inputs of a stage
meeting         the processes of a run meet and compare what they are about to run
gathering       a model that a stage only samples from, of processes that divide their weights
agreeing        what rank 0 of several processes decides alone, and the others follow
torch_setup     threads, memory, warnings
"""
