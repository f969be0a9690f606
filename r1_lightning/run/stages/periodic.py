"""Evaluation during training, and the best weights as an artefact of their own.

If the task holds out enough problems, these differ from those of the final table: the best weights are chosen on them, so their
number on these problems is too good.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import lightning as L
import torch
from omegaconf import DictConfig

from r1_lightning.artefacts import lineage, store
from r1_lightning.artefacts.fingerprint import fingerprint
from r1_lightning.artefacts.store import Artefact
from r1_lightning.callbacks.evaluation import BEST, Evaluation, MakeMeasure, Measure
from r1_lightning.evaluation.kept import Kept
from r1_lightning.evaluation.preferences import (
    PolicyEvaluationConfig,
    PreferenceEvaluationConfig,
    PreferenceEvaluator,
    head_scores,
    implicit_rewards,
)
from r1_lightning.evaluation.runner import EvaluationConfig, Evaluator
from r1_lightning.review.evaluation_records import EvaluationRecords
from r1_lightning.rollout.row_shares import share_of_rows
from r1_lightning.run.build.parts import accuracy_of
from r1_lightning.run.checks.evaluation import stage_evaluation, task_name, with_room
from r1_lightning.run.stages.held_out_text import held_out_text, text_loss
from r1_lightning.stages.base import StageModule
from r1_lightning.stages.mtp import loss_ahead
from r1_lightning.types.errors import InvalidInput, require
from r1_lightning.types.stopping import STOP
from r1_lightning.types.tensors import ChatBatch
from r1_lightning.types.text import Problem

PREFERENCES = "preferences"  # in the names of measures
BEST_FOLDER = "best"  # in an artefact's folder, an artefact itself


def measure_maker(config: DictConfig, parts: Mapping[str, Any], data: Any) -> MakeMeasure:
    """Return a function that makes the stage's measure, on held-out problems (or preferences) and on validation rows."""

    def make(problems: int, samples: int) -> Measure:
        settings = stage_evaluation(config)
        measures: list[Measure] = []
        pairs = preference_evaluator(settings, parts, data, problems)
        if pairs is not None:
            measures.append(lambda module: _named(PREFERENCES, pairs(scored_by(settings, module))))
        if not isinstance(settings, PreferenceEvaluationConfig):
            evaluator = _evaluator(config, parts, settings or EvaluationConfig(), problems, samples)
            kind = task_name(config)
            kept = partial(Kept, parts.get("evaluation_records", EvaluationRecords()), name="val")

            def measure(module: L.LightningModule) -> dict[str, float]:
                # A module that an earlier process has trained to its end counts no steps.
                written = replace(evaluator, kept=kept(step=module.global_step or config.stage.max_steps))
                return _named(kind, written(cast(StageModule, module).backbone))

            measures.append(measure)
        if getattr(data, "validation_rows", 0):
            measures.append(
                lambda module: {"val/loss": chat_loss(cast(StageModule, module), data.validation_batches())}
            )
        if (text := held_out_text(config, data, parts["tokenizer"].vocab_size)) is not None:
            measures.append(lambda module: {"val/loss": text_loss(cast(StageModule, module), text.batches)})
        return lambda module: {name: value for measure in measures for name, value in measure(module).items()}

    return make


def preference_evaluator(
    settings: Any, parts: Mapping[str, Any], data: Any, count: int | None = None
) -> PreferenceEvaluator | None:
    """Make the evaluator of `count` held-out preferences (None: as many as `settings` say); None if `settings` ask for none.

    Call it before training: pairs of the model's own samples would be others afterwards. `InvalidInput` if the data have none.
    """
    config = settings.of_pairs if isinstance(settings, PolicyEvaluationConfig) else settings
    if not isinstance(config, PreferenceEvaluationConfig):
        return None
    allowed = "it needs preferences as data"
    require(hasattr(data, "held_out_rows"), "stage.evaluation", type(settings).__name__, allowed)
    score = head_scores if config is settings else implicit_rewards
    given = (config, data.row_tokens, parts["tokenizer"].pad_id, parts["processes"], score)
    return PreferenceEvaluator(data.held_out_rows(count or config.items), *given)


def scored_by(settings: Any, module: Any) -> Any:
    """What a `PreferenceEvaluator` asks: a reward model itself, or the stage, which has the policy's reference, too."""
    return module if isinstance(settings, PolicyEvaluationConfig) else module.backbone


def _named(kind: str, measures: Mapping[str, Any]) -> dict[str, float]:
    return {f"val/{kind}/{name}": measure.value for name, measure in measures.items()}


def _evaluator(
    config: DictConfig, parts: Mapping[str, Any], settings: EvaluationConfig, problems: int, samples: int
) -> Evaluator:
    chosen = _problems(parts["source"], settings.problems, problems)
    few = replace(settings, problems=len(chosen), samples=samples)
    accuracy = accuracy_of(parts.get("reward"))
    rules: dict[str, Any] = {"accuracy": accuracy, "processes": parts["processes"]}
    evaluator = Evaluator(chosen, parts["tokenizer"], parts["template"], few, config.seed, **rules)
    return with_room(evaluator, parts["backbone"].config.max_positions, parts["source"])


def _problems(source: Any, n_final: int, count: int) -> Sequence[Problem]:
    """Return `count` held-out problems after the `n_final` of the final table; the first `count` if the task has too few."""
    try:
        others = source.held_out_problems(n_final + count)[n_final:]
    except InvalidInput:
        others = []
    return others if len(others) == count else source.held_out_problems(count)


def chat_loss(module: StageModule, batches: Sequence[ChatBatch]) -> float:
    """Mean loss (nats) over all completion tokens of `batches`, with the reduction of SFT's training loss.

    Each process computes its share of the rows of every batch: as many forwards as any other, which weights in pieces need.
    Raises `Stopped` between two batches, in all processes, if one of them has heard a signal.
    """
    total, count = 0.0, 0
    with torch.no_grad():
        for whole in batches:
            STOP.together(STOP.poll, module.processes.any)
            batch = module.transfer_batch_to_device(share_of_rows(whole, module.processes), module.device, 0)
            hidden = module.backbone.hidden(batch.tokens, with_mtp=False).hidden
            n_targets = batch.n_targets(1)
            loss = loss_ahead(module.backbone, hidden, batch.tokens, 1, batch.completion_mask, n_targets)
            # Weighted by tokens, as in training: batches hold different numbers of them.
            total, count = total + float(loss) * int(n_targets), count + int(n_targets)
    return float(module.processes.sum(torch.tensor(total, dtype=torch.float64))) / max(count, 1)


def keep_best(trainer: L.Trainer, folder: Path, stage: str, inputs: Mapping[str, Artefact]) -> None:
    """Turn the best weights, if a callback kept them, into an artefact in `folder`/best, for `init_from`, evaluation and export."""
    evaluation = next((c for c in trainer.callbacks if isinstance(c, Evaluation)), None)  # type: ignore[attr-defined]
    if evaluation is None or evaluation.best is None or not (folder / BEST).is_file():
        return
    best = folder / BEST_FOLDER
    shutil.rmtree(best, ignore_errors=True)  # a kill may have left half of it
    with store.output_folder(best):
        best.mkdir()
        shutil.copytree(folder / store.TOKENIZER, best / store.TOKENIZER)
        shutil.copyfile(folder / store.CONFIG, best / store.CONFIG)
        shutil.copyfile(folder / BEST, best / store.WEIGHTS)
    name = {"of": folder.name, "best": evaluation.best, "step": evaluation.best_step}
    assert evaluation.best_value is not None
    metrics = {evaluation.best: evaluation.best_value, "step": float(evaluation.best_step)}
    artefact = Artefact(best, stage, fingerprint(name))
    store.complete(artefact, lineage.commit(), lineage.environment(), inputs, metrics)
    (folder / BEST).unlink()  # last: a kill before this line makes the artefact again
    print(f"best: step {evaluation.best_step}, {evaluation.best} {evaluation.best_value:.4g} -> {best}", flush=True)
