"""Waiting for an artefact that another process is making: who makes it, and how far it is."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable
from pathlib import Path

from r1_lightning.run.nodes import Node

METRICS = Path("tensorboard", "metrics.csv")  # below an artefact's folder: a row per optimizer step
EVERY_S = 30.0  # between two lines about how far the other process is
TAIL_BYTES = 65_536  # of metrics.csv, enough for its last rows


class Waiting:
    """Called with the holder of a lock whenever it is found taken; says so at first and every `EVERY_S` seconds after."""

    def __init__(self, role: str, node: Node, folder: Path, say: Callable[[str], None]) -> None:
        self.role, self.folder, self.say = role, folder, say
        self.steps = node.stage.config.stage.get("max_steps")
        self.said_s: float | None = None

    def __call__(self, holder: str) -> None:
        now = time.monotonic()
        if self.said_s is None:
            self.say(f"{self.role}: another process ({holder}) is making {self.folder}; waiting for it")
        elif now - self.said_s < EVERY_S:
            return
        else:
            self.say(f"{self.role}: still waiting for {holder}, {_at(last_step(self.folder), self.steps)}")
        self.said_s = now


def _at(step: int | None, steps: int | None) -> str:
    if step is None:
        return "which has trained no step yet"
    return f"which is at step {step}" + (f" of {steps}" if steps else "")


def last_step(folder: Path) -> int | None:
    """How many optimizer steps the artefact in `folder` has logged; None where it has logged none."""
    path = folder / METRICS
    try:
        with path.open("rb") as file:
            header = next(csv.reader([file.readline().decode("utf-8")]), [])
            start = file.tell()
            file.seek(max(start, path.stat().st_size - TAIL_BYTES))
            lines = file.read().decode("utf-8", errors="replace").splitlines()
    except OSError:
        return None
    if "step" not in header:
        return None
    column = header.index("step")
    for row in csv.reader(reversed(lines)):  # the last line may be half written
        if len(row) == len(header) and row[column].isdigit():
            return int(row[column]) + 1
    return None
