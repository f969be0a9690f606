"""Operands as torch's FP8 kernel asks for them, against a stand-in that checks their layout; no kernel has run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from r1_lightning.functional.fp8_products import Recipe, grouped_linear, linear, one_by_one
from r1_lightning.functional.fp8_tiles import BLOCK, ROW_TILE, Quantised, quantise
from r1_lightning.model import fp8_precision, fp8_scaled_mm
from r1_lightning.model.fp8_precision import FP8Precision
from tests.model.tiny import normal

REAL = F.scaled_mm
TILES, BLOCKS = F.ScalingType.BlockWise1x128, F.ScalingType.BlockWise128x128


def kernel(a: Tensor, b: Tensor, scale_a: Tensor, kind_a: Any, scale_b: Tensor, kind_b: Any, **settings: Any) -> Tensor:
    """`scaled_mm` from its checks in ScaledBlas.cpp: shapes, strides, and what each scale belongs to."""
    (m, k), n = a.shape, b.shape[1]
    assert a.dtype == b.dtype == torch.float8_e4m3fn and scale_a.dtype == scale_b.dtype == torch.float32
    assert a.is_contiguous() and b.T.is_contiguous() and m % 16 == 0 and n % 16 == 0 and k % 128 == 0
    assert kind_a == TILES and scale_a.shape == (m, k // 128) and by_column(scale_a)
    left = a.float() * scale_a.repeat_interleave(128, 1)
    if kind_b == TILES:
        assert scale_b.shape == (n, k // 128) and by_column(scale_b)
        right = b.float() * scale_b.T.repeat_interleave(128, 0)
    else:
        assert kind_b == BLOCKS and scale_b.shape == (-(-k // 512) * 4, -(-n // 128)) and by_column(scale_b)
        right = b.float() * scale_b[: k // 128].repeat_interleave(128, 0).repeat_interleave(128, 1)[:, :n]
    return (left @ right).to(settings["output_dtype"])


def by_column(scales: Tensor) -> bool:
    return scales.stride(0) == 1 and (scales.stride(1) == scales.shape[0] or scales.shape[1] == 1)


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(F, "scaled_mm", kernel)


def assert_same_products(products: Sequence[Callable[..., Tensor]], x: Tensor, w: Tensor, dy: Tensor) -> None:
    """Output and both gradients of the two products are equal, but for the order of their sums."""
    results = []
    for product in products:
        x_, w_ = x.clone().requires_grad_(), w.clone().requires_grad_()
        y = product(x_, w_)
        y.backward(dy)
        assert x_.grad is not None and w_.grad is not None
        results.append((y.detach(), x_.grad, w_.grad))
    for wanted, found in zip(*results, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(130, 200, 70), (3, 128, 129), (16, 600, 16), (257, 7, 5)])
@pytest.mark.parametrize("power_of_two", [True, False])
def test_the_three_products_are_those_of_the_emulation(shape: tuple[int, int, int], power_of_two: bool) -> None:
    rows, inputs, outputs = shape
    x, w, dy = normal(rows, inputs, seed=1), normal(outputs, inputs, seed=2), normal(rows, outputs, seed=3)
    recipes = (Recipe(power_of_two), Recipe(power_of_two, multiply=fp8_scaled_mm.multiply))
    assert_same_products([lambda x_, w_, recipe=recipe: linear(x_, w_, recipe) for recipe in recipes], x, w, dy)


def test_layouts_by_hand() -> None:
    """130 x 300: filled up to 144 x 384; 3 tiles in a row; 2 x 3 blocks, whose 3 columns are filled up to 4."""
    matrix = normal(130, 300, seed=0)
    assert fp8_scaled_mm.filled(quantise(matrix).values).shape == (144, 384)
    rows = fp8_scaled_mm.tile_scales(quantise(matrix))
    assert rows.shape == (144, 3) and rows.stride() == (1, 144)
    blocks = quantise(matrix, BLOCK)
    found = fp8_scaled_mm.block_scales(blocks)
    assert found.shape == (4, 2) and found.stride() == (1, 4)
    assert torch.equal(found[:3], blocks.inverse_scales.T) and (found[3] == 1).all()


@pytest.mark.parametrize("tile", [ROW_TILE, BLOCK])
def test_torch_takes_these_layouts(monkeypatch: pytest.MonkeyPatch, tile: tuple[int, int]) -> None:
    """torch's own function, with its checks of shapes and strides, on tensors without numbers (N / 128 is a whole number there)."""
    monkeypatch.setattr(F, "scaled_mm", REAL)

    def operand(rows: int, tile: tuple[int, int]) -> Quantised:
        scales = torch.empty(-(-rows // tile[0]), 3, device="meta")
        return Quantised(torch.empty(rows, 300, dtype=torch.float8_e4m3fn, device="meta"), scales, tile)

    product = fp8_scaled_mm.multiply(operand(130, ROW_TILE), operand(256, tile), torch.float32)
    assert product.shape == (130, 256) and product.dtype == torch.float32
    with pytest.raises(RuntimeError, match="scale a must have shape"):
        monkeypatch.setattr(fp8_scaled_mm, "tile_scales", lambda operand: operand.inverse_scales)
        fp8_scaled_mm.multiply(operand(130, ROW_TILE), operand(256, tile), torch.float32)


def test_experts_one_by_one() -> None:
    counts = torch.tensor([3, 3, 140, 141], dtype=torch.int32)
    x, w, dy = normal(141, 136, seed=1), normal(4, 136, 24, seed=2), normal(141, 24, seed=3)
    assert_same_products(
        [lambda x_, w_, product=product: product(x_, w_, counts) for product in (grouped_linear, one_by_one)], x, w, dy
    )


def test_layers_of_this_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fp8_precision, "reason_against", lambda backend: None)
    ours, emulated = FP8Precision("scaled_mm", "fp32"), FP8Precision("emulate", "fp32")
    x, ends = normal(9, 136, seed=1), torch.tensor([3, 3, 8, 9], dtype=torch.int32)
    for made in (lambda p: p.linear(136, 24, True), lambda p: p.grouped_linear(4, 136, 24, True)):
        layer, twin = made(ours), made(emulated)
        with torch.no_grad():
            layer.weight.copy_(normal(*layer.weight.shape, seed=2))
        twin.load_state_dict(layer.state_dict(), strict=True)
        inputs = (x,) if layer.weight.dim() == 2 else (x, ends)
        torch.testing.assert_close(layer(*inputs), twin(*inputs), rtol=1e-5, atol=1e-5)
