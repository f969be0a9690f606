"""The progress bar: one line in a terminal, with the few numbers that show how training goes; in a log, a line now and then."""

from __future__ import annotations

import sys
import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm

from r1_lightning.artefacts.progress import EVERY_S, is_watched, settings_for

# The metrics that the bar shows -> their short names there; TensorBoard has all metrics under their full names.
SHORT_NAMES = {
    "rollout/reward_mean": "reward",
    "rollout/accuracy_mean": "accuracy",
    "train/loss": "loss",
    "perf/tokens_per_s": "tokens/s",
}


class StageProgressBar(TQDMProgressBar):
    """Counts optimizer steps; its description is the stage's name."""

    def __init__(self, refresh_rate: int = 1) -> None:
        super().__init__(refresh_rate=refresh_rate)

    def init_train_tqdm(self) -> Tqdm:
        """Return the bar, set to the run's first step, which after a resume is not step 0."""
        trainer = self.trainer
        self.is_watched, self.shown_s = is_watched(sys.stdout), time.monotonic()
        drawn = {
            "bar_format": "{desc} {percentage:3.0f}% |{bar:24}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}]{postfix}"
        }
        return Tqdm(
            desc=type(trainer.lightning_module).__name__.removesuffix("Module").lower(),
            total=trainer.max_steps,
            initial=trainer.global_step,
            position=2 * self.process_position,
            disable=self.is_disabled,
            leave=True,
            dynamic_ncols=True,
            smoothing=0,
            **{**drawn, **settings_for(sys.stdout)},
        )

    def on_train_epoch_start(self, *_: Any) -> None:
        """Do nothing: Lightning's own method would rename the bar "Epoch 0" and reset it, and is not called after a resume."""

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, *_: Any) -> None:
        bar = self.train_progress_bar
        if trainer.global_step > bar.n and self._is_due(trainer):
            bar.n = trainer.global_step
            bar.set_postfix(self.get_metrics(trainer, module), refresh=False)
            bar.refresh()

    def _is_due(self, trainer: L.Trainer) -> bool:
        """True every `refresh_rate` steps in a terminal; in a log every `EVERY_S` seconds and at the last step."""
        if self.is_watched:
            return self._should_update(trainer.global_step, trainer.max_steps)
        now = time.monotonic()
        is_last = trainer.should_stop or trainer.global_step == trainer.max_steps
        if not is_last and now - self.shown_s < EVERY_S:
            return False
        self.shown_s = now
        return True

    def get_metrics(
        self, trainer: L.Trainer, pl_module: L.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Return the shown metrics by short name, with few digits; a metric that the stage does not have is left out."""
        values = trainer.callback_metrics
        shown: dict[str, int | str | float | dict[str, float]] = {}
        for name, short in SHORT_NAMES.items():
            if name in values and not (short == "loss" and "rollout/reward_mean" in values):
                value = float(values[name])
                shown[short] = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3f}"
        return shown
