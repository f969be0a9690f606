"""What a person calls a run: stage, experiment and seed, as in `grpo-r1_zero_tiny-seed0`.

A folder's name ends in digits of its fingerprint, by which a command finds it again; in a list of curves they tell nobody what a
run is. The experiment's name is no part of the configuration (two experiments may lead to the same run), so the process that
begins a run notes it in a file. Reading needs no torch.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from r1_lightning.artefacts.files import write_text

EXPERIMENT = "experiment.txt"  # in the run's folder; none if the run is of no experiment
CONFIG = "config.yaml"  # as `artefacts.store` names it, which imports torch
NAME = re.compile(r"[\w.-]{1,100}")  # of an experiment; the folder may be anybody's
DIGITS = re.compile(
    r"-[0-9a-f]{10}(-\d+)?$"
)  # of the fingerprint, at the end of a folder's name; -2 is the second of that name


def note_experiment(folder: Path, experiment: str | None) -> None:
    """Write the name of the run's experiment into its folder, once: a later command may find the same run by another name."""
    if experiment is not None and not (folder / EXPERIMENT).exists():
        write_text(folder / EXPERIMENT, f"{experiment}\n")


def experiment_of(folder: Path) -> str | None:
    """Return the name of the experiment of the run in `folder`; None if it is of none, or made before this was noted."""
    try:
        with (folder / EXPERIMENT).open(encoding="utf-8") as file:
            name = file.readline(200).strip()
    except (OSError, ValueError):
        return None
    return name if NAME.fullmatch(name) else None


def label(folder_name: str, experiment: str | None, name: str | None, seed: object) -> str:
    """Return the label of a run; without an experiment, `folder_name` tells the model and the task, or the run's own `name`.

    >>> label("grpo-tiny-arithmetic-5f0d25f395", "r1_zero_tiny", None, 0)
    'grpo-r1_zero_tiny-seed0'
    >>> label("grpo-tiny-arithmetic-5f0d25f395", None, None, 1)
    'grpo-tiny-arithmetic-seed1'
    """
    stage, _, rest = DIGITS.sub("", folder_name).partition("-")
    known = [stage, experiment, name] if experiment else [stage, rest]
    return "-".join([*(part for part in known if part), f"seed{seed}"])


def label_of(folder: Path) -> str:
    """Return the label of the run in `folder`; the folder's own name if its configuration cannot be read."""
    try:
        config: Any = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
        seed, name = int(config["seed"]), config.get("name")
    except (OSError, ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError):
        return folder.name
    own = name if isinstance(name, str) and NAME.fullmatch(name) else None
    return label(folder.name, experiment_of(folder), own, seed)
