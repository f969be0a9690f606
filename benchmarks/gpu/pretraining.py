"""Pre-training tokens/s in BF16 and what share of the device's arithmetic they take (MFU), of dense models and mixtures.

A step is the loss of `PretrainModule` (next token and sequence-wise balance), backward, gradient clipping and AdamW, in a plain
loop. Rows are full, one document each, of random tokens: routing of a fresh model on them is about even. FP32 weights, products
in BF16 by autocast; deterministic algorithms, as in every run of ours; nothing is compiled.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn

from benchmarks.gpu.device import Limits, Meter
from benchmarks.gpu.formulas import mfu, training_flops_per_token
from benchmarks.gpu.models import fresh_backbone
from benchmarks.gpu.report import Row
from benchmarks.gpu.shapes import kind_of
from benchmarks.pairs import deterministic
from r1_lightning.model.config import ModelConfig
from r1_lightning.model.precision import Precision
from r1_lightning.stages.base import AdamWConfig
from r1_lightning.stages.pretrain import PretrainModule
from r1_lightning.types.tensors import TokenBatch

LEARNING_RATE = 1e-4


@dataclass(frozen=True)
class TrainSize:
    """Rows x tokens of a step, and how many steps warm up and count."""

    rows: int
    row_tokens: int
    warm_up: int
    steps: int

    @property
    def tokens(self) -> int:
        return self.rows * self.row_tokens


def title(config: ModelConfig, size: TrainSize) -> str:
    shape = f"{kind_of(config)}, width {config.d_model:,}"
    return f"pre-training, {shape}, {size.rows} rows x {size.row_tokens:,} tokens, BF16"


def measure(config: ModelConfig, size: TrainSize, meter: Meter, limits: Limits) -> Iterator[Row]:
    """Train `size.warm_up + size.steps` steps; the row of the table."""
    with deterministic():
        step = optimizer_step(config, size, meter.device)
        step_s = meter.seconds_per_call(step, size.warm_up, size.steps)
    peak = meter.peak_bytes()
    flops = training_flops_per_token(config, size.row_tokens)
    tokens_per_s = size.tokens / step_s
    share = mfu(tokens_per_s, flops, limits.bf16_flops_per_s)
    yield Row(
        part="pretraining",
        work=title(config, size),
        unit="tokens/s",
        value=tokens_per_s,
        beside=f"MFU {share:.1%} of {limits.bf16_flops_per_s / 1e12:.4g} TFLOP/s ({limits.source})",
        peak_bytes=peak,
        details={"mfu": share, "flops_per_token": flops, "bf16_flops_per_s": limits.bf16_flops_per_s},
    )


def optimizer_step(
    config: ModelConfig, size: TrainSize, device: torch.device, precision: Precision | None = None
) -> Callable[[], None]:
    """A step of a fresh model, in BF16 unless there is a `precision`."""
    backbone = fresh_backbone(config, device, precision).train()
    optim = AdamWConfig(lr=LEARNING_RATE)
    module = PretrainModule(backbone, optim, max_steps=1, mtp_loss_weight=0.0, bias_update_speed=0.0)
    warnings.filterwarnings("ignore", message=".*trainer.* reference is not registered.*")  # a plain loop
    optimizer = optim.build(backbone)
    batch = full_rows(config, size.rows, size.row_tokens).to(device)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        module.training_step(batch, 0).backward()
        nn.utils.clip_grad_norm_(backbone.parameters(), optim.max_grad_norm)
        optimizer.step()

    return step


def full_rows(config: ModelConfig, rows: int, row_tokens: int) -> TokenBatch:
    """`rows` documents of random tokens, one to a row, without padding."""
    shape = (rows, row_tokens)
    token_ids = torch.randint(config.vocab_size, shape, generator=torch.Generator().manual_seed(0))
    positions = torch.arange(row_tokens).expand(shape).contiguous()
    return TokenBatch(token_ids, positions, torch.ones_like(positions))
