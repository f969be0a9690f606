"""The progress bar: one line a person can read, with the few numbers that tell whether it goes well."""

from __future__ import annotations

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import TQDMProgressBar

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

    def init_train_tqdm(self) -> Any:
        bar = super().init_train_tqdm()
        bar.bar_format = "{desc} {percentage:3.0f}% |{bar:24}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}]{postfix}"
        return bar

    @property
    def total_train_batches(self) -> int | float:
        """Optimizer steps: how many parts each is computed in is nothing to count."""
        return self.trainer.max_steps

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, *rest: Any) -> None:
        if self.train_progress_bar is not None and self._should_update(
            trainer.global_step, self.train_progress_bar.total
        ):
            self.train_progress_bar.n = trainer.global_step
            self.train_progress_bar.set_postfix(self.get_metrics(trainer, module))

    def on_train_epoch_start(self, trainer: L.Trainer, *_: Any) -> None:
        super().on_train_epoch_start(trainer)
        self.train_progress_bar.set_description(type(trainer.lightning_module).__name__.removesuffix("Module").lower())

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
