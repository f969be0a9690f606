"""Stops training without losing a step: after a signal (`types/stopping.py`), or when its time is up.

A signal that comes in a step lets its micro-batch end. If that was the step's last, the step is saved, and training stops.
Otherwise, and wherever else training polls (in a rollout, between rewards, while a teacher fills its cache), what was begun is
given up, and the state of the last whole step is saved: the weights change nowhere else, and the position in the data is that
which was noted at the end of that step. All draws are keyed, so the same command makes the same rollout again, token by token.
"""

from __future__ import annotations

import time
from typing import Any, Protocol

import lightning as L

from r1_lightning.callbacks.checkpoint import generator_states, set_generator_states
from r1_lightning.types.errors import STOPPED_BY_TIME, Stopped, require_duration
from r1_lightning.types.stopping import REQUEUE, STOP, Stop


class Saver(Protocol):
    """Saves the training state; `saved_step` is the last optimizer step on disk, `taken_step` the last that `save` has seen."""

    saved_step: int
    taken_step: int

    def save(self, trainer: L.Trainer) -> None: ...


class Interruption(L.Callback):
    """Ends training after a signal or when `max_time` ("HH:MM:SS") has run out; `stopped` is the reason.

    `saver`, which saves after an optimizer step if `trainer.should_stop`, must come after this one in the list of callbacks.
    `compiles`: the steps go through a compiler, which does not poll; a signal then ends a forward or a backward at once.
    """

    def __init__(
        self, max_time: str | None = None, saver: Saver | None = None, compiles: bool = False, stop: Stop = STOP
    ) -> None:
        self.max_time, self.saver, self.compiles, self.stop = max_time, saver, compiles, stop
        self.max_s = None if max_time is None else require_duration("trainer.max_time", max_time)
        self.stopped: Stopped | None = None
        self.last_step = 0
        self.started_s = 0.0
        # After `last_step`: Lightning's counters with the position in the data, and the states of the global random generators.
        self.noted: tuple[dict[str, Any], dict[str, Any]] | None = None
        self.is_back = False  # True while the state of `last_step` is saved from the middle of the next

    def setup(self, trainer: L.Trainer, module: L.LightningModule, stage: str) -> None:
        # Lightning's own handler calls other processes from inside the signal, wherever they are, and ends with exit code 0.
        trainer._signal_connector.register_signal_handlers = _nothing  # type: ignore[method-assign]

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.last_step, self.started_s = trainer.global_step, time.monotonic()
        self._poll(trainer)

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        # A step of one micro-batch is nearly done once its batch is there.
        if trainer.accumulate_grad_batches > 1:
            self._poll(trainer)
        self.stop.raises = self.compiles

    def on_after_backward(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.stop.raises = False

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, *_: Any) -> None:
        self.stop.raises = False  # a step that was skipped has no backward
        step, before = trainer.global_step, self.last_step
        if step == before:  # between two micro-batches of a step
            return
        self.last_step = step
        self.noted = trainer._checkpoint_connector._get_loops_state_dict(), generator_states(module.device)
        if step < trainer.max_steps and (stopped := self._asked(trainer)) is not None:
            self.stopped = stopped  # after the last step there is nothing left to stop
            trainer.should_stop = True

    def on_save_checkpoint(self, trainer: L.Trainer, module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        if self.is_back and self.noted is not None:
            checkpoint["loops"], generators = self.noted
            set_generator_states(generators, module.device)  # a saver reads them after this; nothing else is drawn

    def on_exception(self, trainer: L.Trainer, module: L.LightningModule, exception: BaseException) -> None:
        """Save the last whole step if work ended in the middle of the next, and it is not on its way to the disk already."""
        # After a second signal this process calls no other. Those that save together are told by the group that it has left.
        saver = self.saver
        if saver is None or self.noted is None or not isinstance(exception, Stopped) or self.stop.twice:
            return
        if max(saver.saved_step, saver.taken_step) < self.last_step == trainer.global_step:
            self.is_back = True
            try:
                saver.save(trainer)
            finally:
                self.is_back = False

    def _poll(self, trainer: L.Trainer) -> None:
        """Raise `Stopped` in all processes if one has heard a signal."""
        if self._anywhere(trainer, self.stop.asked is not None):
            raise self.stop.asked or _by_another()

    def _asked(self, trainer: L.Trainer) -> Stopped | None:
        """Return why to stop; the same in all processes."""
        is_over = self.max_s is not None and time.monotonic() - self.started_s >= self.max_s
        if self._anywhere(trainer, self.stop.asked is not None):
            return self.stop.asked or _by_another()
        if self._anywhere(trainer, is_over):
            return Stopped(f"trainer.max_time={self.max_time} is over", STOPPED_BY_TIME)
        return None

    def _anywhere(self, trainer: L.Trainer, here: bool) -> bool:
        """True in all processes if `here` is in any."""
        return bool(trainer.strategy.reduce_boolean_decision(here, all=False)) if trainer.world_size > 1 else here


def _by_another() -> Stopped:
    """The reason in a process whose own signal has not come yet: another one has heard it."""
    return Stopped("interrupted", REQUEUE)


def _nothing() -> None:
    """Install no handler."""
