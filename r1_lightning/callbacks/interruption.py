"""Stops training early without losing a step: at Ctrl-C, SIGTERM or SIGUSR1 (sent by batch systems), or when its time is up.

After the first signal the current step finishes, is saved, and training stops; a second signal exits at once, with the checkpoint
that was saved before. Python installs signal handlers in the main thread only: in another one (a notebook's worker) signals keep
the handlers that they had.
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
    """Sets `trainer.should_stop` after the step in which a signal came or `max_time` ("HH:MM:SS") ran out; `stopped` is the reason.

    A callback that saves on `should_stop` (`ResumeCheckpoint`) must come after this one in the list of callbacks.
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
        # Only between optimizer steps; after the last one there is nothing left to stop.
        if self.asked is not None and step > before and step < trainer.max_steps:
            self.stopped = self.asked
            trainer.should_stop = True

    def on_train_end(self, trainer: L.Trainer, *_: Any) -> None:
        self._restore_handlers()

    def on_exception(self, trainer: L.Trainer, *_: Any) -> None:
        self._restore_handlers()

    def _hear(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal: note the first one, raise `Stopped` at the second."""
        stopped = Stopped("interrupted", 128 + number)
        if self.asked is not None:
            raise stopped
        self.asked = stopped
        name = NAMES.get(signal.Signals(number), signal.Signals(number).name)
        print(f"\n{name}: stopping after this step; once more leaves at once", file=sys.stderr, flush=True)

    def _restore_handlers(self) -> None:
        """Put back the signal handlers that were there before training."""
        for number, handler in self.before.items():
            if handler is not None:  # None: a handler that was not installed from Python, which cannot be put back
                signal.signal(number, handler)
        self.before = {}
