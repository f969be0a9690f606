"""Ends a training early without losing a step: at Ctrl-C, SIGTERM or SIGUSR1 (what batch systems send), or when its time is up.

The first signal lets the step in hand end, has it saved, and stops; a second one leaves at once, with what was saved before. Only
the main thread of a program can be told of signals: elsewhere (a notebook's worker) they do what they did before.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from types import FrameType
from typing import Any

import lightning as L

from r1_lightning.types.errors import STOPPED_BY_TIME, Stopped, require_duration

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))
NAMES = {signal.SIGINT: "Ctrl-C"}


class Interruption(L.Callback):
    """Sets `trainer.should_stop` after the step at which a signal came or `max_time` ("HH:MM:SS") ran out; `stopped` says why.

    Whoever saves on `should_stop` (`ResumeCheckpoint`) comes after it in the list of callbacks.
    """

    def __init__(self, max_time: str | None = None) -> None:
        self.max_time = max_time
        self.max_s = None if max_time is None else require_duration("trainer.max_time", max_time)
        self.stopped: Stopped | None = None
        self.asked: Stopped | None = None
        self.last_step = 0
        self.started_s = 0.0
        self.before: dict[int, Any] = {}

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.last_step, self.started_s = trainer.global_step, time.monotonic()
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.signal(number, self._hear) for number in SIGNALS}

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, *_: Any) -> None:
        step, before = trainer.global_step, self.last_step
        self.last_step = step
        if self.asked is None and self.max_s is not None and time.monotonic() - self.started_s >= self.max_s:
            self.asked = Stopped(f"trainer.max_time={self.max_time} is over", STOPPED_BY_TIME)
        if self.asked is not None and step > before and step < trainer.max_steps:
            self.stopped = self.asked
            trainer.should_stop = True

    def on_train_end(self, trainer: L.Trainer, *_: Any) -> None:
        self._give_back()

    def on_exception(self, trainer: L.Trainer, *_: Any) -> None:
        self._give_back()

    def _hear(self, number: int, frame: FrameType | None) -> None:
        """The handler of the signals. Raises `Stopped` at the second one."""
        stopped = Stopped("interrupted", 128 + number)
        if self.asked is not None:
            raise stopped
        self.asked = stopped
        name = NAMES.get(signal.Signals(number), signal.Signals(number).name)
        print(f"\n{name}: stopping after this step; once more leaves at once", file=sys.stderr, flush=True)

    def _give_back(self) -> None:
        """Signals do again what they did; one that came too late for a step of its own is obeyed by who called `fit`."""
        for number, handler in self.before.items():
            if handler is not None:
                signal.signal(number, handler)
        self.before = {}
