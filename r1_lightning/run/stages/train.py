"""Runs a stage that trains, in its folder: builds the parts, trains (or resumes), evaluates, writes the weights and the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
from omegaconf import DictConfig

from r1_lightning.artefacts.files import write_text
from r1_lightning.artefacts.progress import progress
from r1_lightning.artefacts.store import TABLE, TOKENIZER, Artefact
from r1_lightning.evaluation.kept import Kept
from r1_lightning.evaluation.metrics import Measure
from r1_lightning.evaluation.preferences import PreferenceEvaluationConfig, PreferenceEvaluator
from r1_lightning.evaluation.runner import Evaluator, render_table
from r1_lightning.model.lora import fold_adapters
from r1_lightning.model.whole_copy import whole_model
from r1_lightning.review.evaluation_records import END, EvaluationRecords
from r1_lightning.rewards.combine import WeightedSum
from r1_lightning.rollout.sampler import device_of
from r1_lightning.run.build.device import mesh_of
from r1_lightning.run.build.judges import with_judge
from r1_lightning.run.build.models import make_backbone
from r1_lightning.run.build.parts import accuracy_of, build_parts
from r1_lightning.run.build.reward_models import with_models
from r1_lightning.run.build.teachers import with_teacher
from r1_lightning.run.build.torch_setup import set_up_for, silence_warnings
from r1_lightning.run.checks.evaluation import held_out_problems, stage_evaluation, task_name, with_room
from r1_lightning.run.config.inject import inject
from r1_lightning.run.config.keys import TEACHER
from r1_lightning.run.stages.fitting import make_trainer
from r1_lightning.run.stages.held_out_text import held_out_text, measured_text
from r1_lightning.run.stages.loggers import log_results
from r1_lightning.run.stages.periodic import PREFERENCES, keep_best, measure_maker, preference_evaluator, scored_by
from r1_lightning.run.stages.trained import trained
from r1_lightning.types.processes import processes_now
from r1_lightning.types.stopping import STOP


def run_training(config: DictConfig, stage_name: str, folder: Path, inputs: dict[str, Artefact]) -> Mapping[str, float]:
    """Train `stage_name` in `folder` from `inputs`, resuming from its last checkpoint; returns the final metrics.

    Raises `InvalidInput` for a damaged checkpoint or input, and OSErrors of a folder that cannot be written.
    """
    silence_warnings()
    set_up_for(config)
    # For libraries and users' code with global generators; our own draws are keyed and do not depend on it.
    L.seed_everything(config.seed, verbose=False)
    STOP.together(STOP.poll, processes_now().any)  # several processes build to the end, once they have begun
    parts = build_parts(config, inputs.get("base"))
    # Adapters of the input become part of its weights, so that the reference is this policy, not an earlier stage's base.
    fold_adapters(parts["backbone"], config.seed)
    # A configuration can name a model-based reward but not hold its model: that is an input, and is put in here.
    if isinstance(parts.get("reward"), WeightedSum):
        parts["reward"] = with_models(parts["reward"], inputs, parts["backbone"].precision, config)
    if "data" in inputs:
        parts["data_folder"] = inputs["data"].folder
    # The module's learning-rate schedule needs the number of steps, which may depend on the data.
    config, datamodule = _with_steps(config, parts)
    parts = with_judge(with_teacher(parts, inputs, config), inputs, config)
    module = inject(config.stage, parts)
    datamodule = datamodule or inject(config.data, parts)
    evaluator = _evaluator(config, parts)  # before training, so that a refusal costs no training time
    judge = preference_evaluator(stage_evaluation(config), parts, datamodule)
    held_out = held_out_text(config, datamodule, parts["tokenizer"].vocab_size)
    is_main = parts["processes"].is_main  # the other processes of the run write nothing
    if is_main:
        parts["tokenizer"].save(folder / TOKENIZER, parts["template"])
    # Callbacks ask for these by name, as targets do for every other part.
    parts["evaluation_records"] = EvaluationRecords()
    parts = {**parts, "make_measure": measure_maker(config, parts, datamodule), "folder": folder}
    trainer = make_trainer(config, parts, folder, getattr(datamodule, "micro_batches", 1))
    metrics = trained(trainer, module, datamodule, folder, parts["processes"])
    if is_main:
        keep_best(trainer, folder, stage_name, inputs)
    of_text = ("", {}) if held_out is None else measured_text(held_out, module)
    tables = []
    if evaluator is not None:
        tables.append(_evaluate(evaluator, config, parts, inputs, stage_name))
    if judge is not None:
        tables.append(_evaluate_preferences(judge, scored_by(stage_evaluation(config), module), stage_name))
    measured = {name: value for _, numbers in [of_text, *tables] for name, value in numbers.items()}
    table = "\n\n".join(text for text, _ in [*tables, of_text] if text)
    if tables and is_main:  # without one, all metrics are shown, and those of the text among them
        write_text(folder / TABLE, f"{table}\n")
    log_results(measured, table, trainer, config.stage.max_steps)
    return {**metrics, **measured}


def _with_steps(config: DictConfig, parts: dict[str, Any]) -> tuple[DictConfig, L.LightningDataModule | None]:
    """If `stage.max_steps` is null, build the data module now and set the number of steps from its data."""
    if config.stage.max_steps is not None:
        return config, None
    datamodule = inject(config.data, parts)
    config = config.copy()
    config.stage.max_steps = parts["max_steps"] = datamodule.steps()
    return config, datamodule


def _evaluator(config: DictConfig, parts: Mapping[str, Any]) -> Evaluator | None:
    """Make and check the stage's evaluator on problems; None if the stage is not evaluated on any."""
    settings = stage_evaluation(config)
    if settings is None or isinstance(settings, PreferenceEvaluationConfig):
        return None
    problems = held_out_problems(parts["source"], settings)
    # The training's own accuracy reward, so that evaluation and training agree on what is right.
    accuracy = accuracy_of(parts.get("reward"), config.task.get("judge"), parts["template"].form)
    rules: dict[str, Any] = {"accuracy": accuracy, "processes": parts["processes"]}
    evaluator = Evaluator(problems, parts["tokenizer"], parts["template"], settings, config.seed, **rules)
    return with_room(evaluator, parts["backbone"].config.max_positions, parts["source"])


def _evaluate(
    evaluator: Evaluator,
    config: DictConfig,
    parts: Mapping[str, Any],
    inputs: Mapping[str, Artefact],
    stage_name: str,
) -> tuple[str, dict[str, float]]:
    """Evaluate the model, its base and its teacher on the same held-out problems; returns the table and its numbers."""
    settings = evaluator.config
    # Functions, so that the base is loaded only for its own evaluation.
    models: dict[str, Callable[[], Any]] = {stage_name: lambda: parts["backbone"]}
    if "base" in inputs:
        shape, precision = parts["backbone"].config, parts["backbone"].precision
        device = device_of(parts["backbone"])
        models = {
            "base": lambda: make_backbone(shape, precision, inputs["base"], device=device, mesh=mesh_of(config)),
            **models,
        }
    if TEACHER in parts:
        models[TEACHER] = lambda: parts[TEACHER].model
    columns: dict[str, dict[str, Measure]] = {}
    for name, model in models.items():
        bar_of = progress(len(evaluator.problems) * settings.samples, f"evaluating {name}", "completion")
        with bar_of as bar, whole_model(model().eval()) as whole:  # gathered once, however many calls a process makes
            kept = Kept(parts["evaluation_records"], config.stage.max_steps, END) if name == stage_name else None
            columns[name] = replace(evaluator, kept=kept)(whole, bar.update)
    named = config.task.get("name")
    task = named or config.task.source["_target_"].rpartition(".")[2]
    title = (
        f"{len(evaluator.problems)} held-out problems of {task}, {settings.samples} samples each at temperature "
        f"{settings.sampling_temperature:g}, 95 % intervals"
    )
    kind = task_name(config)
    # Other models get a prefix of their own, so that `eval/...` is always the measure of this stage's model.
    return render_table(title, columns), {
        f"{'eval' if name == stage_name else f'eval_{name}'}/{kind}/{measure}": value.value
        for name, measures in columns.items()
        for measure, value in measures.items()
    }


def _evaluate_preferences(evaluator: PreferenceEvaluator, model: Any, stage_name: str) -> tuple[str, dict[str, float]]:
    """Evaluate a model on held-out preferences; returns the table and its numbers."""
    with progress(len(evaluator.rows), f"evaluating {stage_name}", "item") as bar:
        measures = evaluator(model, bar.update)
    title = f"{len(evaluator.rows)} held-out preferences, 95 % intervals"
    numbers = {f"eval/{PREFERENCES}/{name}": measure.value for name, measure in measures.items()}
    return render_table(title, {stage_name: measures}), numbers
