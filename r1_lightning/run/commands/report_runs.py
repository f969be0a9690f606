"""The runs of a report: trains in a child process, finds the artefact by its fingerprint, and fills the columns on its origin."""

from __future__ import annotations

import functools
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from r1_lightning.artefacts.file_names import METRICS
from r1_lightning.artefacts.fingerprint import SHORT_DIGITS
from r1_lightning.artefacts.lineage import commit
from r1_lightning.artefacts.store import Artefact
from r1_lightning.run.commands.recipe import read
from r1_lightning.run.config.compose import compose_stage, composing
from r1_lightning.run.graph.node import Node
from r1_lightning.run.graph.plan import plan
from r1_lightning.types.errors import InvalidInput

PROGRAM = "import sys; from r1_lightning.__main__ import main; sys.exit(main())"  # `r1`, installed or not


def train(arguments: Sequence[str], root: Path) -> tuple[Artefact, float]:
    """Run `r1 train` with these arguments as a process of its own; its artefacts go to `root`.

    Returns the finished artefact, found by the fingerprint that the arguments plan, and the seconds the process took. Raises
    `CalledProcessError` if the process fails, `InvalidInput` if it leaves no finished artefact of that fingerprint.
    """
    words, start_s = [*arguments, f"paths.root={root}"], time.monotonic()
    command = [sys.executable, "-c", PROGRAM, "train", *words]
    if status := _wait_for(command):
        raise subprocess.CalledProcessError(status, command)
    seconds, node = time.monotonic() - start_s, planned(words)
    found = node.found()
    if found is None or not found.complete:
        what = f"{node.stage.stage} of fingerprint {node.fingerprint[:SHORT_DIGITS]}"
        raise InvalidInput(f"{root}: the run ended and left no finished artefact ({what})")
    return found, seconds


def _wait_for(command: Sequence[str]) -> int:
    """Return the exit status of a process. Ctrl-C reaches the process as well; it then saves its step, and we wait for it."""
    sys.stdout.flush()
    with subprocess.Popen(command) as process:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                continue


def planned(arguments: Sequence[str]) -> Node:
    """Plan what `scripts/train.py` would make with these arguments and the current configuration. Raises `InvalidInput`."""
    with composing():
        return plan(compose_stage(list(arguments)))


@functools.cache
def planned_fingerprint(*arguments: str) -> str:
    """Return the first digits of the fingerprint that these arguments would give."""
    return planned(arguments).fingerprint[:SHORT_DIGITS]


@functools.cache
def commit_at_start() -> str:
    """Return the code's commit, read once: later the report's own growing files would make the checkout look changed."""
    return commit()


def made_by(artefact: Artefact) -> dict[str, str]:
    """Return the columns of a row for its configuration and its code: fingerprint and commit."""
    return {"fingerprint": artefact.fingerprint[:SHORT_DIGITS], "commit": commit_at_start()}


def rollout_means(artefact: Artefact, names: Iterable[str]) -> Iterator[dict[str, str]]:
    """Yield `step` and the metrics `rollout/NAME` of every step of an RL run, by name, with four digits."""
    for row in read(artefact.folder / METRICS):
        if row.get("rollout/reward_mean"):
            yield {"step": row["step"], **{name: f"{float(row[f'rollout/{name}']):.4f}" for name in names}}
