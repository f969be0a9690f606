"""Logs what the policy samples during RL: rollout metrics, and sample completions as text in TensorBoard."""

from __future__ import annotations

from typing import Any

import lightning as L
from lightning.pytorch.loggers import TensorBoardLogger

from r1_lightning.types.errors import require_int

SAMPLES_SHOWN = 4


class RolloutLogger(L.Callback):
    """Logs each rollout's metrics once, at the first step that trains on it; every `text_every` rollouts also completions.

    Lightning repeats a metric's last value at steps that log none, so a curve has one level per rollout.
    """

    def __init__(self, text_every: int = 10) -> None:
        require_int("callbacks.rollout_logger.text_every", text_every, 1)
        self.text_every = text_every
        self.shown = -1

    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, batch: Any, batch_idx: int) -> None:
        dataset = getattr(getattr(trainer, "datamodule", None), "dataset", None)
        rollout = getattr(dataset, "rollout", None)
        if rollout is None or rollout.number == self.shown:
            return
        self.shown = rollout.number
        in_bar = ("rollout/reward_mean", "rollout/accuracy_mean")
        for name, value in rollout.summary().items():
            module.log(name, value, prog_bar=name in in_bar, batch_size=1)
        if rollout.number % self.text_every == 0:
            self._log_texts(trainer, rollout)

    def _log_texts(self, trainer: L.Trainer, rollout: Any) -> None:
        rewards = rollout.rewards.flatten().tolist()
        group_size = rollout.rewards.shape[1]
        shown = [place * group_size for place in range(min(SAMPLES_SHOWN, len(rollout.problems)))]
        text = "\n\n".join(
            f"**{rollout.problems[row // group_size].question}** (answer {rollout.problems[row // group_size].answer}, "
            f"reward {rewards[row]:g})\n\n{as_code(rollout.texts[row])}\n\n{as_code(_why(rollout, row))}"
            for row in shown
        )
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_text("rollout/samples", text, trainer.global_step)


def _why(rollout: Any, row: int) -> str:
    """Return each reward function's reason for its score of completion `row`, one per line."""
    return "\n".join(f"{name}: {reasons[row]}" for name, reasons in rollout.reasons.items())


def as_code(text: str) -> str:
    """Return `text` as a Markdown code block: every line indented, or TensorBoard would read tags in later lines as HTML."""
    return "\n".join(f"    {line}" for line in text.split("\n"))
