"""Prints, while a run trains, whether it is as expected: at checkpoints of a long run, and at its last step.

The line is that of `r1_lightning/review`, read from the run's own files. It changes nothing that is trained, and an error in it is
told and ends nothing. Every process has this callback, the main one speaks.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import CSVLogger

from r1_lightning.callbacks.checkpoint import ResumeCheckpoint
from r1_lightning.review.verdict import Review, review
from r1_lightning.types.errors import require_number

COST = 100.0  # a review may take this part of the time: a hundredth
BAD = ("differs", "failed")


class VerdictLine(L.Callback):
    """Reviews the run in `folder` at its checkpoints, at most every `every_s` seconds, and at its end.

    A verdict that turns bad is told at the checkpoint that sees it. Without `folder`, or before there is anything to judge, it is
    silent.
    """

    def __init__(self, every_s: float, folder: Path | None = None) -> None:
        require_number("callbacks.verdict.every_s", every_s, 0.0)
        self.every_s = every_s
        self.folder = folder
        self.told_s = self.looked_s = time.monotonic()
        self.took_s = 0.0
        self.seen = self.begun = 0
        self.was_bad = False

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.told_s = self.looked_s = time.monotonic()
        self.seen = self.begun = trainer.global_step

    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, batch: Any, batch_idx: int) -> None:
        """By now Lightning has given the last step's metrics to the loggers."""
        step = trainer.global_step
        if not trainer.is_global_zero or step == self.seen or step % _checkpoint_every(trainer):
            return
        self.seen = step
        if time.monotonic() - self.looked_s >= COST * self.took_s:
            self._look(trainer, is_last=False)

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if trainer.is_global_zero and trainer.global_step == trainer.max_steps > self.begun:
            self._look(trainer, is_last=True)

    def _look(self, trainer: L.Trainer, is_last: bool) -> None:
        if self.folder is None:
            return
        self.looked_s = time.monotonic()
        try:
            for logger in trainer.loggers:
                if isinstance(logger, CSVLogger):
                    logger.save()  # its last rows, which it writes every ten steps by itself
            found = review(self.folder, at_work=True)
        except Exception as error:
            if is_last:
                print(f"verdict: none, the run's files cannot be reviewed ({' '.join(str(error).split())})", flush=True)
            return
        finally:
            self.took_s = time.monotonic() - self.looked_s
        self._tell(found, trainer.global_step, is_last)

    def _tell(self, found: Review, step: int, is_last: bool) -> None:
        is_bad = found.verdict.state in BAD
        turned, self.was_bad = is_bad and not self.was_bad, is_bad
        is_due = time.monotonic() - self.told_s >= self.every_s
        has_something = found.verdict.state != "no band" or bool(found.advisories)
        if has_something and (is_last or turned or is_due):
            self.told_s = time.monotonic()
            print(f"verdict after {step} steps: {found.verdict.sentence}", flush=True)


def _checkpoint_every(trainer: L.Trainer) -> int:
    """Return the steps between two checkpoints; of a Trainer that saves none, no step is a checkpoint's."""
    callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]  # its connector sets it
    savers = [one.every_steps for one in callbacks if isinstance(one, ResumeCheckpoint)]
    return savers[0] if savers else trainer.max_steps + 1
