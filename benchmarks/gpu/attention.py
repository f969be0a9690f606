"""One layer of attention, forward and backward, on rows of 4,096 and 32,768 tokens: is it bound by arithmetic, and not by masks?

The layer is a block's (`model/attention.py`), projections included, with the mask that the model itself makes for the rows; every
row is one document, the most work that a row can be. Making the mask is within the time. Beside it: the share of the device's
arithmetic that the useful products take (those of tokens in sight, backward included), and the same with a dense mask, which
grows with the square of the row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.device import Limits, Meter
from benchmarks.gpu.models import draw_weights
from benchmarks.gpu.pretraining import full_rows
from benchmarks.gpu.report import GIB, Row, quantity
from benchmarks.pairs import deterministic
from r1_lightning.model.attention import AttentionKind, layer_kinds
from r1_lightning.model.config import ModelConfig
from r1_lightning.model.cost import TRAINING_FLOPS
from r1_lightning.model.masked_attention import DenseRows
from r1_lightning.model.precision import PlainPrecision
from r1_lightning.model.rope import rotary_tables

MaskMaker = Callable[[Tensor], Any]


@dataclass(frozen=True)
class AttentionSize:
    """Rows x tokens through the layer, and how many passes warm up and count."""

    rows: int
    row_tokens: int
    warm_up: int
    steps: int

    @property
    def tokens(self) -> int:
        return self.rows * self.row_tokens


def title(config: ModelConfig, size: AttentionSize) -> str:
    kind = layer_kinds(config)[0].name
    return f"attention ({kind}), width {config.d_model:,}, {size.rows} rows x {size.row_tokens:,} tokens, BF16"


def measure(config: ModelConfig, size: AttentionSize, meter: Meter, limits: Limits) -> Iterator[Row]:
    """The layer with the model's own mask; then the same row with the dense mask's numbers beside it."""
    kind = layer_kinds(config)[0]
    layer = kind.build(config, PlainPrecision("bf16"), 0).to(meter.device)  # type: ignore[attr-defined]
    draw_weights(layer, config.init_std)
    flops = TRAINING_FLOPS * (
        sum(p.numel() for p in layer.parameters() if p.dim() > 1)
        + kind.forward_products(config, (size.row_tokens + 1) / 2)
    )

    def rate(mask: MaskMaker) -> tuple[float, int | None]:
        with deterministic():
            pass_s = meter.seconds_per_call(_pass(config, kind, layer, size, meter, mask), size.warm_up, size.steps)
        return size.tokens / pass_s, meter.peak_bytes()

    value, peak = rate(kind.row_mask)
    share = value * flops / limits.bf16_flops_per_s
    beside = f"{share:.1%} of {limits.bf16_flops_per_s / 1e12:.4g} TFLOP/s ({limits.source})"
    details = {"mfu": share, "flops_per_token": flops, "bf16_flops_per_s": limits.bf16_flops_per_s}
    row = Row("attention", title(config, size), "tokens/s", value, beside, peak, details)
    yield row
    try:
        other, other_peak = rate(DenseRows.of)
    except torch.OutOfMemoryError:
        yield replace(row, beside=f"{beside}; with a dense mask: out of memory")
        return
    memory = "" if other_peak is None else f", peak {other_peak / GIB:.1f} GiB"
    yield replace(
        row,
        beside=f"{beside}; with a dense mask {quantity(other, 'tokens/s')}{memory}: {value / other:.2f}x",
        details={**details, "dense_tokens_per_s": other, "dense_peak_bytes": other_peak},
    )


def _pass(
    config: ModelConfig, kind: AttentionKind, layer: Any, size: AttentionSize, meter: Meter, mask: MaskMaker
) -> Callable[[], None]:
    """A forward and a backward of the layer on random input."""
    batch = full_rows(config, size.rows, size.row_tokens).to(meter.device)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(size.rows, size.row_tokens, config.d_model, generator=generator).to(meter.device).requires_grad_()
    tables = rotary_tables(config.max_positions, kind.rotary_width(config), config.rope_theta, config.yarn)
    cos, sin = (table.to(meter.device)[batch.position_ids] for table in tables)
    precision = PlainPrecision("bf16")

    def run() -> None:
        x.grad = None
        layer.zero_grad(set_to_none=True)
        with precision.autocast(meter.device.type):
            out = layer(x, cos, sin, mask(batch.document_ids))
        out.float().square().mean().backward()

    return run
