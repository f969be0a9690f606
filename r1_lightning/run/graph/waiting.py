"""Waiting for an artefact that another process is making: prints which process makes it, and its step."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from r1_lightning.artefacts.steps import last_step
from r1_lightning.run.graph.node import Node
from r1_lightning.types.stopping import STOP

EVERY_S = 30.0  # between two lines about the other process's step


class Waiting:
    """Called with the holder of a lock after each failed try; prints a line at the first call and then every `EVERY_S` seconds.

    Raises `Stopped` if a signal has come.
    """

    def __init__(
        self, role: str, node: Node, folder: Path, say: Callable[[str], None], alive: Callable[[], None] = lambda: None
    ) -> None:
        self.role, self.folder, self.say, self.alive = role, folder, say, alive
        self.steps = node.stage.config.stage.get("max_steps")
        self.said_s: float | None = None

    def __call__(self, holder: str) -> None:
        STOP.poll()  # with several processes no handler raises
        now = time.monotonic()
        self.alive()  # other processes of this run may wait for this one
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
