"""Training in FP8 beside BF16 over widths: tokens/s, MFU, and the width from which on FP8 is the faster.

Two works: forward and backward of one dense block, and a step of a dense model (`pretraining.py`) with its head and AdamW. BF16 is
measured first at every width, then FP8 by one backend. The share of arithmetic is of the device's BF16 rate for both, so the ratio
of two shares is the ratio of speeds. FP8 multiplies at twice that rate, and pays by cutting its operands: it breaks even where
products are wide enough. Others report 1.41x for a layer cut in the same blocks (5 B parameters, H200) and 1.28x at most for a
whole step (torchao, MXFP8 on B200: pytorch.org/blog/accelerating-2k-scale-pre-training-up-to-1-28x).
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.gpu.device import Limits, Meter
from benchmarks.gpu.formulas import mfu, training_flops_per_token
from benchmarks.gpu.models import draw_weights
from benchmarks.gpu.pretraining import TrainSize, full_rows, optimizer_step
from benchmarks.gpu.report import Row, quantity
from benchmarks.pairs import deterministic
from r1_lightning.model.attention import layer_kinds
from r1_lightning.model.block import Block
from r1_lightning.model.config import ModelConfig
from r1_lightning.model.cost import TRAINING_FLOPS
from r1_lightning.model.fp8_precision import FP8Precision, reason_against
from r1_lightning.model.precision import PlainPrecision, Precision
from r1_lightning.model.rope import rotary_tables

Prepared = tuple[Callable[[], None], float]  # a pass, and its useful FLOPs per token
PEERS = {"block": "others report 1.41x", "step": "others report 1.28x at most"}


@dataclass(frozen=True)
class Measured:
    """One precision at one width."""

    tokens_per_s: float
    mfu: float
    peak_bytes: int | None


def title(backend: str, size: TrainSize) -> str:
    return f"FP8 by {backend} beside BF16, dense, {size.rows} rows x {size.row_tokens:,} tokens"


def measure(
    backend: str, configs: Sequence[ModelConfig], size: TrainSize, meter: Meter, limits: Callable[[], Limits]
) -> Iterator[Row]:
    """For each work a row per width, narrow ones first, and one that says where FP8 breaks even."""
    if reason := reason_against(backend):
        yield Row("fp8_speed", title(backend, size), not_run=reason)
        return
    flops_per_s = limits().bf16_flops_per_s
    for kind, prepare in {"block": block_pass, "step": step_pass}.items():
        ratios: dict[int, float] = {}
        for config in configs:
            work = f"{title(backend, size)}: {kind}, width {config.d_model:,}"
            try:
                bf16, fp8 = (
                    _measured(prepare, config, size, precision, meter, flops_per_s)
                    for precision in (PlainPrecision("bf16"), FP8Precision(backend, "bf16"))  # type: ignore[arg-type]
                )
            except torch.OutOfMemoryError:
                yield Row("fp8_speed", work, not_run="out of memory")
                continue
            ratios[config.d_model] = fp8.tokens_per_s / bf16.tokens_per_s
            yield _row(work, bf16, fp8)
        if ratios:
            yield _break_even_row(f"{title(backend, size)}: {kind}, break-even", kind, ratios)


def _measured(
    prepare: Callable[..., Prepared],
    config: ModelConfig,
    size: TrainSize,
    precision: Precision,
    meter: Meter,
    flops_per_s: float,
) -> Measured:
    gc.collect()  # the model before
    with deterministic():
        run, flops = prepare(config, size, meter.device, precision)
        pass_s = meter.seconds_per_call(run, size.warm_up, size.steps)
    tokens_per_s = size.tokens / pass_s
    return Measured(tokens_per_s, mfu(tokens_per_s, flops, flops_per_s), meter.peak_bytes())


def block_pass(config: ModelConfig, size: TrainSize, device: torch.device, precision: Precision) -> Prepared:
    """Forward and backward of a dense block, projections, attention and feed-forward."""
    with torch.device("meta"):
        made = Block(config, precision, is_dense=True, layer=0)
    block: Any = made.to_empty(device=device)
    draw_weights(block, config.init_std)
    kind = layer_kinds(config)[0]
    batch = full_rows(config, size.rows, size.row_tokens).to(device)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(size.rows, size.row_tokens, config.d_model, generator=generator).to(device).requires_grad_()
    tables = rotary_tables(config.max_positions, kind.rotary_width(config), config.rope_theta, config.yarn)
    cos, sin = (table.to(device)[batch.position_ids] for table in tables)

    def run() -> None:
        x.grad = None
        block.zero_grad(set_to_none=True)
        with precision.autocast(device.type):
            out, _ = block(x, cos, sin, kind.row_mask(batch.document_ids), batch.is_token)
        out.float().square().mean().backward()

    weights = sum(p.numel() for p in block.parameters() if p.dim() > 1)
    return run, TRAINING_FLOPS * (weights + kind.forward_products(config, (size.row_tokens + 1) / 2))


def step_pass(config: ModelConfig, size: TrainSize, device: torch.device, precision: Precision) -> Prepared:
    """A step of pre-training, optimizer included."""
    return optimizer_step(config, size, device, precision), training_flops_per_token(config, size.row_tokens)


def _row(work: str, bf16: Measured, fp8: Measured) -> Row:
    ratio = fp8.tokens_per_s / bf16.tokens_per_s
    return Row(
        part="fp8_speed",
        work=work,
        unit="tokens/s",
        value=fp8.tokens_per_s,
        beside=f"MFU {fp8.mfu:.1%}; BF16 {quantity(bf16.tokens_per_s, 'tokens/s')}, MFU {bf16.mfu:.1%}: {ratio:.2f}x",
        peak_bytes=fp8.peak_bytes,
        details={
            "mfu": fp8.mfu,
            "bf16_mfu": bf16.mfu,
            "bf16_tokens_per_s": bf16.tokens_per_s,
            "bf16_peak_bytes": bf16.peak_bytes,
            "speed_up": ratio,
        },
    )


def _break_even_row(work: str, kind: str, ratios: dict[int, float]) -> Row:
    widest = max(ratios)
    width = break_even(ratios)
    where = "slower at the widest" if width is None else f"not slower from width {width:,.0f} on"
    return Row(
        part="fp8_speed",
        work=work,
        unit=f"x BF16 at width {widest:,}",
        value=ratios[widest],
        beside=f"{where}; {PEERS[kind]}",
        details={"break_even_width": width, **{f"speed_up_at_{w}": ratio for w, ratio in ratios.items()}},
    )


def break_even(ratios: dict[int, float]) -> float | None:
    """The least width from which on FP8 is not slower, by a line through ratios over log2 of the width.

    The narrowest measured where FP8 is never slower, None where it is slower at the widest.
    """
    widths = sorted(ratios)
    slower = [width for width in widths if ratios[width] < 1]
    if not slower:
        return float(widths[0])
    last = slower[-1]
    if last == widths[-1]:
        return None
    after = widths[widths.index(last) + 1]
    share = (1 - ratios[last]) / (ratios[after] - ratios[last])
    return float(2 ** (math.log2(last) + share * (math.log2(after) - math.log2(last))))
