"""Objects from configurations: models with their weights, tokenizers, samplers, rewards, teachers, judges.

parts           every object that a stage, its data module or its callbacks ask for by name
models          a backbone of any kind, with the weights it begins with
stored          a model as it lies in a folder, opened the same way for everybody
hf_import       folders in HuggingFace's form as inputs
reward_models, teachers, judges   other models as inputs of a stage
torch_setup     threads, memory, warnings
"""
