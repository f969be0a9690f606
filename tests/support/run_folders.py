"""Folders of runs for tests of what reads them: metrics.csv, config.yaml and a marker, with values that a test chooses."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

CONFIG: dict[str, Any] = {
    "seed": 0,
    "model": {"_target_": "r1_lightning.model.config.ModelConfig", "d_model": 8},
    "rollout": {"_target_": "r1_lightning.rollout.groups.RolloutConfig", "minibatches_per_rollout": 2},
    "reward": {"weights": {"accuracy": 1.0, "format": 1.0}},
    "optim": {"lr": 0.0001},
    "precision": {"compute": "fp32"},
    "stage": {"_target_": "r1_lightning.stages.grpo.GRPOModule", "max_steps": 30},
}


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Write config.yaml in `folder`, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(dict(config)), encoding="utf-8")


def write_run(
    folder: Path,
    curves: Mapping[str, Sequence[float]],
    config: Mapping[str, Any] = CONFIG,
    final: Mapping[str, float] | None = None,
) -> Path:
    """Write a run that logged `curves` at steps 0, 1, ...; with `final` measures it is complete. Returns `folder`."""
    write_config(folder, config)
    (folder / "tensorboard").mkdir(exist_ok=True)
    with (folder / "tensorboard" / "metrics.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*curves, "step"])
        rows = zip(*curves.values(), strict=True)
        writer.writerows([*row, step] for step, row in enumerate(rows))
    if final is not None:
        (folder / "artefact.json").write_text(json.dumps({"metrics": dict(final)}), encoding="utf-8")
    return folder
