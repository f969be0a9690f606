"""Trains a stage to its last step, or finds that an earlier process did, and was stopped while it evaluated the model.

The weights lie in the artefact's folder before the model is evaluated, which may take as long as training. `trained.json` beside
them says that they are those of the last step, with the metrics that training ended with; it goes when the artefact is complete.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightning as L

from r1_lightning.artefacts.files import write_json
from r1_lightning.artefacts.leftovers import TRAINED
from r1_lightning.artefacts.store import WEIGHTS
from r1_lightning.artefacts.weights import load_weights, save_by_main
from r1_lightning.callbacks.evaluation import Evaluation
from r1_lightning.run.stages.fitting import fit
from r1_lightning.types.errors import require
from r1_lightning.types.processes import ONE, Processes


def trained(
    trainer: L.Trainer, module: Any, datamodule: L.LightningDataModule, folder: Path, processes: Processes = ONE
) -> dict[str, float]:
    """Train `module` to its last step, unless `folder` has its weights; returns the metrics after that step.

    The main one of `processes` alone writes.

    Raises what `fit` raises, unless training reached its last step: weights of a run that stopped early are never saved as a
    result. `InvalidInput` names damaged weights, and a record that is none.
    """
    evaluation = next((c for c in trainer.callbacks if isinstance(c, Evaluation)), None)  # type: ignore[attr-defined]
    if processes.from_main((folder / TRAINED).is_file):
        metrics = _resume(module, folder, evaluation)
    else:
        fit(trainer, module, datamodule, folder)
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        save_by_main(module.backbone, folder / WEIGHTS, processes.is_main)
        if processes.is_main:
            _note(folder, metrics, evaluation)
    if evaluation is not None and (values := evaluation.catch_up(trainer, module, trainer.max_steps)):
        metrics.update(values)
        if processes.is_main:
            _note(folder, metrics, evaluation)
    return metrics


def _note(folder: Path, metrics: dict[str, float], evaluation: Evaluation | None) -> None:
    write_json(folder / TRAINED, {"metrics": metrics, "evaluation": evaluation and evaluation.state_dict()})


def _resume(module: Any, folder: Path, evaluation: Evaluation | None) -> dict[str, float]:
    """Load the weights of the last step; returns the metrics noted beside them."""
    path = folder / TRAINED
    try:
        noted = json.loads(path.read_text(encoding="utf-8"))
        metrics = {
            str(name): float("nan") if value is None else float(value) for name, value in noted["metrics"].items()
        }
        state = noted["evaluation"]
    except (ValueError, KeyError, TypeError, AttributeError):
        allowed = "it is damaged; remove it to train on from the last checkpoint"
        require(False, "trained", str(path), allowed)
        raise
    load_weights(module.backbone, folder / WEIGHTS)
    if evaluation is not None and state is not None:
        evaluation.load_state_dict(state)
    return metrics
