"""What a person calls a run: stage, experiment and seed, as in `grpo-r1_zero_tiny-seed0`.

A folder's name ends in digits of its fingerprint, by which a command finds it again; in a list of curves they tell nobody what a
run is. The experiment's name is no part of the configuration (two experiments may lead to the same run), so the process that
begins a run notes it in a file. Reading needs no torch.
"""

from __future__ import annotations

import re
from pathlib import Path

from r1_lightning.artefacts.file_names import CONFIG
from r1_lightning.artefacts.files import write_text

EXPERIMENT = "experiment.txt"  # in the run's folder; none if the run is of no experiment
NAME = re.compile(r"[\w.-]{1,100}")  # of an experiment; the folder may be anybody's
CONFIG_CHARACTERS = 2**20  # of a configuration that are looked at
SEED, OWN_NAME = re.compile(r"^seed: (\d{1,20})$", re.MULTILINE), re.compile(r"^name: (\S+)$", re.MULTILINE)
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
        if not (folder / EXPERIMENT).is_file():  # a pipe would wait for a writer
            return None
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
    """Return the label of the run in `folder`; the folder's own name if its configuration names no seed.

    The two lines are looked for, not parsed: the folder may be anybody's, and a YAML parser can be kept busy for ever.
    """
    try:
        if not (folder / CONFIG).is_file():
            return folder.name
        with (folder / CONFIG).open(encoding="utf-8") as file:
            text = file.read(CONFIG_CHARACTERS)
    except (OSError, ValueError):
        return folder.name
    seed, name = SEED.search(text), OWN_NAME.search(text)
    if seed is None:
        return folder.name
    own = name[1] if name and name[1] != "null" and NAME.fullmatch(name[1]) else None
    return label(folder.name, experiment_of(folder), own, seed[1])
