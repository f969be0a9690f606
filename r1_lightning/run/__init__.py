"""The composition root: the only layer that reads configurations, and the graph that makes missing inputs first.

What a command such as `python scripts/train.py stage=grpo` goes through, file by file:

    cli                 hydra.main composes the configuration; a person's mistake ends in one line and exit code 2
    openmp              how long torch's threads wait by spinning, before torch is imported
    compose             a stage's configuration, and from it those of the stages that make its inputs
    settle              what an option has for one stage alone
    declared            names and plain types against the text of our classes, still without torch
    graph.plan          from the target down, for every stage of the graph, before anything is made:
        validate          each value against what takes it: names, types, ranges
        rules             between groups: the trainer, what is set in one place only, batches, how long to train
        reward_rules      forms of completions, models that rewards ask
        model_rules       lengths, samplers, adapters
        task_rules        the first look at rows: examples, documents, held-out problems
        importing         init_from=FOLDER in HuggingFace's form says what the model is
        inheriting        what an input knows (task, reward, lengths), and settings that fit a checkpoint
        (graph)           the fingerprint: what the stage would make, by name
    dry_run             with dry_run=true the command ends here: stage_cost counts, probe measures
    graph.build         from the bottom up: what is there is used, what was interrupted resumes, the rest is made
    train.run_stage     one stage in its folder: parts (models, reward_models, teachers, judges), Trainer, measuring, table
    sampling            in place of training where the stage is `sample`
    comparing           in place of training where the stage is `compare`

Beside them: `machine` (what a command needs of the system), `quoting` (names that Hydra cannot read bare), `file_names` (the
readers of files that are only named), `exit_codes` (how a command ends), `hints` (annotations and plain values), `keys` (what `run`
reads itself), `nodes` (a stage, planned), `targets` (which code a configuration may name), `stage_tree` (the graph for people),
`waiting` (for what another process makes), `fitting` (the Trainer and its endings), `loggers` and `logger_rules` (where metrics
go), `metrics_log` (metrics.csv across resumes), `periodic` (what is measured while a stage trains), `last_words` (what to do
next), `data_card` (what a sampled data set says of itself), `stored_config` (an artefact's configuration, read again).

The other scripts: `runs` (what lies there), `evaluate`, `model_sizes`; `export`, `show_problems` and `write_traces`, on `commands`;
the reports over runs are `*_report`, on `reports`. `notebook` is what `import r1_lightning` offers.
"""
