"""Training throughput: tokens per second of all processes together, over the time since the last step ended."""

from __future__ import annotations

import time
from typing import Any

import lightning as L
import torch

SMOOTHING = 0.9  # weight of the past in the running mean: nobody can read a number that jumps


class Throughput(L.Callback):
    """Logs `perf/tokens_per_s` (trained tokens without padding; in RL the sampling time counts) and seconds per step."""

    def __init__(self) -> None:
        self.last_s: float | None = None
        self.last_step = 0
        self.tokens = 0  # of the current step's micro-batches
        self.rate: float | None = None

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.last_s, self.last_step = time.monotonic(), trainer.global_step

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.tokens += int(getattr(batch, "tokens", batch).is_token.sum())
        if trainer.global_step == self.last_step:
            return
        tokens = int(module.processes.sum(torch.tensor(self.tokens)))
        now_s = time.monotonic()
        step_s, self.last_s = now_s - (self.last_s or now_s), now_s
        self.tokens, self.last_step = 0, trainer.global_step
        if step_s > 0:
            rate = tokens / step_s
            self.rate = rate if self.rate is None else SMOOTHING * self.rate + (1 - SMOOTHING) * rate
            module.log("perf/tokens_per_s", self.rate, prog_bar=True, batch_size=1)
            module.log("perf/step_s", step_s, batch_size=1)
            module.log("perf/step_tokens", float(tokens), batch_size=1)
