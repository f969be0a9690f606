"""The composition root: the only layer that reads configurations, and the graph that makes missing inputs first.

Seven rooms; a room imports from the rooms below it only (import-linter, `pyproject.toml`):

    cli         hydra.main composes the configuration; a person's mistake ends in one line and exit code 2
    commands    the commands beside training        | cost     what a stage would take, before it runs
    graph       plan from the target down, build up | stages   what happens inside one stage's folder
    checks      refusals before anything is made    | build    objects from configurations
    config      composing, keys, names, exit codes

What a command such as `r1 train stage=grpo` goes through, file by file:

    commands.console        finds the command by its name
    cli
    config.openmp           how long torch's threads wait by spinning, before torch is imported
    config.compose          a stage's configuration, and from it those of the stages that make its inputs
    config.settle           what an option has for one stage alone
    checks.declared         names and plain types against the text of our classes, still without torch
    graph.plan              from the target down, for every stage of the graph, before anything is made:
        checks.validate       each value against what takes it: names, types, ranges
        checks.rules          between groups: the trainer, what is set in one place only, batches, how long to train
        checks.rewards        forms of completions, models that rewards ask
        checks.models         lengths, samplers, adapters
        checks.tasks          the first look at rows: examples, documents, held-out problems
        build.hf_import       init_from=FOLDER in HuggingFace's form says what the model is
        graph.inheriting      what an input knows (task, reward, lengths), and settings that fit a checkpoint
        graph.fingerprints    what the stage would make, by name
    cost.dry_run            with dry_run=true the command ends here: stage_cost counts, probe measures
    graph.build             from the bottom up: what is there is used, what was interrupted resumes, the rest is made
    stages.kinds            what runs each kind of stage, in its folder:
        stages.train          parts (models, reward_models, teachers, judges), Trainer, measuring, table
        stages.rejection_sampling   a sampled data set
        stages.compare        a table of models

Each room's `__init__` names its other files.
"""
