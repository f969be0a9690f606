"""How far are FP8 products from exact ones, and how far from the emulation's: forward and both gradients.

A linear layer and a layer of experts, one of them without rows, take BF16 inputs under autocast, as in training; counts of rows
are ragged. The exact products are FP32 of the same inputs and weights. Rounding to E4M3 costs about 3.7 % of a product's norm; a
backend whose products are much nearer to the exact ones was not in FP8, which is a failure, as is more than `BOUND` from the
emulation, whose sums and scales a kernel shares but for the order of adding and BF16's rounding of the result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.device import Meter
from benchmarks.gpu.report import Row
from r1_lightning.functional import fp8_products
from r1_lightning.model.fp8_precision import FP8Precision, reason_against

BOUND, LEAST = 5e-3, 0.01  # of a product's norm: from the emulation at most, from FP32 at least
PRODUCTS = ("y", "dx", "dw")


@dataclass(frozen=True)
class ProductsSize:
    """Widths of both layers, and the rows of each expert; the linear layer takes all rows."""

    inputs: int
    outputs: int
    counts: tuple[int, ...]

    @property
    def rows(self) -> int:
        return sum(self.counts)


def title(backend: str, kind: str, size: ProductsSize) -> str:
    return f"FP8 by {backend}: products of {kind}, {size.rows:,} rows, {size.inputs:,} to {size.outputs:,}"


def measure(backend: str, size: ProductsSize, meter: Meter) -> Iterator[Row]:
    """A row for the linear layer and one for the experts."""
    kinds = {"a linear layer": _linear, "experts": _experts}
    if reason := reason_against(backend):
        for kind in kinds:
            yield Row("fp8_products", title(backend, kind, size), not_run=reason)
        return
    with _exact_fp32():
        for kind, run in kinds.items():
            found, emulated, exact = run(FP8Precision(backend, "bf16"), size, meter.device)  # type: ignore[arg-type]
            yield _row(title(backend, kind, size), found, emulated, exact, meter)


@contextmanager
def _exact_fp32() -> Iterator[None]:
    """FP32 products in FP32: the process has TF32 for them."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _row(work: str, found: Any, emulated: Any, exact: Any, meter: Meter) -> Row:
    errors = {name: (distance(found[name], exact[name]), distance(found[name], emulated[name])) for name in PRODUCTS}
    good = sum(of_emulation <= BOUND and of_fp32 >= LEAST for of_fp32, of_emulation in errors.values())
    said = (f"{name} {a:.2%} from FP32's, {b:.2%} from the emulation's" for name, (a, b) in errors.items())
    details: dict[str, float | str | None] = {}
    for name, (of_fp32, of_emulation) in errors.items():
        details |= {f"{name}_from_fp32": of_fp32, f"{name}_from_emulation": of_emulation}
    return Row(
        part="fp8_products",
        work=work,
        unit=f"of {len(PRODUCTS)} products in FP8 and within {BOUND:.1%} of the emulation's",
        value=float(good),
        beside="; ".join(said),
        peak_bytes=meter.peak_bytes(),
        details=details,
        failed=good < len(PRODUCTS),
    )


def distance(found: Tensor, wanted: Tensor) -> float:
    """|found - wanted| / |wanted|, infinite for numbers that are none."""
    ratio = float((found.float() - wanted.float()).norm() / wanted.float().norm())
    return ratio if ratio == ratio else float("inf")


def _drawn(*shape: int, seed: int, device: torch.device) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(device)


def _products(product: Callable[..., Tensor], x: Tensor, weight: Tensor, dy: Tensor) -> dict[str, Tensor]:
    """The product and both gradients."""
    x, weight = x.detach().clone().requires_grad_(), weight.detach().clone().requires_grad_()
    y = product(x, weight)
    y.backward(dy.to(y.dtype))
    assert x.grad is not None and weight.grad is not None
    return {"y": y.detach(), "dx": x.grad, "dw": weight.grad}


def _of_layer(layer: Any, precision: FP8Precision, x: Tensor, dy: Tensor, *rest: Tensor) -> dict[str, Tensor]:
    x = x.detach().clone().requires_grad_()
    with precision.autocast(x.device.type):
        y = layer(x, *rest)
    y.backward(dy.to(y.dtype))
    return {"y": y.detach(), "dx": x.grad, "dw": layer.weight.grad}  # type: ignore[dict-item]


def _linear(precision: FP8Precision, size: ProductsSize, device: torch.device) -> tuple[dict[str, Tensor], ...]:
    x = _drawn(size.rows, size.inputs, seed=0, device=device).bfloat16()
    weight = _drawn(size.outputs, size.inputs, seed=1, device=device) / size.inputs**0.5
    dy = _drawn(size.rows, size.outputs, seed=2, device=device).bfloat16()
    layer: Any = precision.linear(size.inputs, size.outputs, True).to(device)
    with torch.no_grad():
        layer.weight.copy_(weight)
    found = _of_layer(layer, precision, x, dy)
    emulated = _products(fp8_products.linear, x, weight, dy)
    exact = _products(lambda x, weight: x.float() @ weight.T, x, weight, dy)
    return found, emulated, exact


def _experts(precision: FP8Precision, size: ProductsSize, device: torch.device) -> tuple[dict[str, Tensor], ...]:
    x = _drawn(size.rows, size.inputs, seed=3, device=device).bfloat16()
    weight = _drawn(len(size.counts), size.inputs, size.outputs, seed=4, device=device) / size.inputs**0.5
    dy = _drawn(size.rows, size.outputs, seed=5, device=device).bfloat16()
    ends = torch.tensor(size.counts, device=device).cumsum(0).to(torch.int32)
    layer: Any = precision.grouped_linear(len(size.counts), size.inputs, size.outputs, True).to(device)
    with torch.no_grad():
        layer.weight.copy_(weight)
    found = _of_layer(layer, precision, x, dy, ends)

    def one_by_one(x: Tensor, weight: Tensor) -> Tensor:
        return torch.cat([part.float() @ one for part, one in zip(x.split(list(size.counts)), weight, strict=True)])

    emulated = _products(lambda x, weight: fp8_products.one_by_one(x, weight, ends), x, weight, dy)
    return found, emulated, _products(one_by_one, x, weight, dy)
