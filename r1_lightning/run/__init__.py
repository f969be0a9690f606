"""The composition root: the only layer that reads configurations, and the graph that makes missing inputs first.

Seven rooms; a room imports from the rooms below it only (import-linter, `pyproject.toml`):

    cli         hydra.main composes the configuration; a person's mistake ends in one line and exit code 2
    commands    the commands beside training        | cost     what a stage would take, before it runs
    graph       plan from the target down, build up | stages   what happens inside one stage's folder
    checks      refusals before anything is made    | build    objects from configurations
    config      composing, keys, names, exit codes

What a command such as `r1 train stage=grpo` goes through, file by file:

    r1_lightning.__main__   finds the command by its name
    cli
    config.openmp           limits how long torch's threads spin, before torch is imported
    config.place            this process among those of its run; config.starting starts the others, if nobody has
    config.compose          a stage's configuration, and from it those of the stages that make its inputs
    config.settle           values of an option for one stage alone
    checks.declared         names and plain types against the source of our classes, still without torch
    graph.plan              from the target down, for every stage of the graph, before anything is made:
        checks.validate       each value against its target: names, types, ranges
        checks.rules          rules between groups: the trainer, one key per value, batches, the number of steps
        checks.rewards        forms of completions, models of model-based rewards
        checks.models         lengths, samplers, adapters
        checks.tasks          the first look at rows: examples, documents, held-out problems
        build.hf_import       a HuggingFace folder given by init_from=FOLDER defines the model
        graph.inheriting      settings from an input (task, reward, lengths), and settings for a checkpoint
        graph.fingerprints    the fingerprint of the stage's artefact
    cost.dry_run            with dry_run=true the command ends here: stage_cost counts, probe measures
    build.meeting           the processes of the run meet and compare what they are about to run
    graph.build             from the inputs up: complete artefacts are reused, interrupted ones resumed, the others made
    stages.kinds            runs each kind of stage in its folder:
        stages.train          parts (models, reward_models, teachers, judges), Trainer, measuring, table
        stages.rejection_sampling   a sampled data set
        stages.compare        a table of models

Each room's `__init__` names its other files.
"""
