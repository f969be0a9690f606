"""Logs what the policy samples during RL: rollout metrics, and sample completions as text where a logger takes text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning as L
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from r1_lightning.callbacks.sample_texts import Sample, markdown, plain, shown_samples, visible
from r1_lightning.types.errors import require_int

TAG = "rollout/samples"
COLUMNS = ("prompt", "rank", "question", "answer", "reward", "reasons", "tokens", "ended", "completion")


class RolloutLogger(L.Callback):
    """Logs each rollout's metrics once, at the first step that trains on it; every `text_every` rollouts also completions.

    Lightning repeats a metric's last value at steps that log none, so a curve has one level per rollout. Completions go to
    TensorBoard as text, to Weights & Biases as a table, to MLflow as a text file.
    """

    def __init__(self, text_every: int = 5) -> None:
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
        if rollout.number % self.text_every == 0 and trainer.is_global_zero:
            samples = shown_samples(rollout)
            for logger in trainer.loggers:
                log_samples(logger, samples, trainer.global_step)


def log_samples(logger: Logger, samples: Sequence[Sample], step: int) -> None:
    """Give `samples` to a logger that has a place for text; no other logger is asked."""
    if isinstance(logger, TensorBoardLogger):
        logger.experiment.add_text(TAG, markdown(samples), step)
    elif isinstance(logger, WandbLogger):
        logger.log_text(TAG, columns=list(COLUMNS), data=[_row(sample) for sample in samples], step=step)
    elif isinstance(logger, MLFlowLogger):
        text = "\n\n".join(f"Prompt {s.prompt + 1}, {s.rank}\n{plain(s)}" for s in samples)
        logger.experiment.log_text(logger.run_id, f"{text}\n", f"{TAG}/step_{step:06d}.txt")


def _row(sample: Sample) -> list[Any]:
    reasons = "\n".join(f"{name} {score:.4g}: {reason}" for name, score, reason in sample.parts)
    texts = map(visible, (sample.question, sample.answer, reasons, sample.completion))
    question, answer, reasons, completion = texts
    given = [sample.prompt + 1, sample.rank, question, answer, sample.reward, reasons]
    return [*given, sample.length, sample.finished, completion]
