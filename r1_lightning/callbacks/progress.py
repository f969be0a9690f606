"""The progress bar: one line a person can read, with the few numbers that tell whether it goes well."""

from __future__ import annotations

import sys
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm

# Which metrics the bar shows, and their short names there; TensorBoard has all of them under their full names.
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
        """Begins where the run begins, which after a resume is not step 0."""
        trainer = self.trainer
        return Tqdm(
            desc=type(trainer.lightning_module).__name__.removesuffix("Module").lower(),
            total=trainer.max_steps,
            initial=trainer.global_step,
            position=2 * self.process_position,
            disable=self.is_disabled,
            leave=True,
            dynamic_ncols=True,
            file=sys.stdout,
            smoothing=0,
            bar_format="{desc} {percentage:3.0f}% |{bar:24}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}]{postfix}",
        )

    def on_train_epoch_start(self, *_: Any) -> None:
        """Lightning's own would name the bar "Epoch 0" and set it back; a resumed run does not even come here."""

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, *_: Any) -> None:
        bar = self.train_progress_bar
        if trainer.global_step > bar.n and self._should_update(trainer.global_step, trainer.max_steps):
            bar.n = trainer.global_step
            bar.set_postfix(self.get_metrics(trainer, module), refresh=False)
            bar.refresh()

    def get_metrics(
        self, trainer: L.Trainer, pl_module: L.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Short names and few digits; a metric that a stage does not have is left out."""
        values = trainer.callback_metrics
        shown: dict[str, int | str | float | dict[str, float]] = {}
        for name, short in SHORT_NAMES.items():
            if name in values and not (short == "loss" and "rollout/reward_mean" in values):
                value = float(values[name])
                shown[short] = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3f}"
        return shown
