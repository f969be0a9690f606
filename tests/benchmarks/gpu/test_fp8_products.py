"""Products of the emulation are its own; a layer that is not in FP8, and one that is wrong, are failures."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch

from benchmarks.gpu import fp8_products
from benchmarks.gpu.device import Meter
from benchmarks.gpu.fp8_products import ProductsSize
from r1_lightning.model import fp8_precision, fp8_te
from tests.support import fake_te

CPU = Meter(torch.device("cpu"))
SIZE = ProductsSize(160, 48, (70, 0, 33, 30))


def test_the_rehearsal() -> None:
    """E4M3 has 4 bits of significand: about 2.65 % for each operand, 3.7 % for a product of two."""
    linear, experts = fp8_products.measure("emulate", SIZE, CPU)
    assert linear.work == "FP8 by emulate: products of a linear layer, 133 rows, 160 to 48"
    for row in (linear, experts):
        assert row.value == 3.0 and not row.failed, row.beside
        for name in ("y", "dx", "dw"):
            assert 0.03 < float(row.details[f"{name}_from_fp32"] or 0) < 0.045
            assert float(row.details[f"{name}_from_emulation"] or 0) < 1e-3  # BF16 rounds sums of another order
    assert "dw 3." in experts.beside


def test_products_that_are_too_good_are_not_in_fp8(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in for Transformer Engine multiplies in BF16: y and dx are within 1 % of FP32's."""
    for name, module in fake_te.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for module in (fp8_precision, fp8_products):
        monkeypatch.setattr(module, "reason_against", lambda backend: None)
    fp8_te._layers.cache_clear()
    rows = list(fp8_products.measure("te", SIZE, CPU))
    fp8_te._layers.cache_clear()
    assert [(row.value, row.failed) for row in rows] == [(0.0, True)] * 2
    assert all(float(row.details["y_from_fp32"] or 1) < 0.01 for row in rows)


def test_products_that_are_wrong_are_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    class Doubled(fp8_precision.FP8Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * 1.01

    monkeypatch.setattr(fp8_precision, "FP8Linear", Doubled)
    linear, experts = fp8_products.measure("emulate", SIZE, CPU)
    assert (linear.value, linear.failed, experts.failed) == (0.0, True, False)


def test_numbers_that_are_none_are_far_away() -> None:
    one = torch.ones(2)
    assert fp8_products.distance(torch.tensor([1.0, float("nan")]), one) == float("inf")
    assert fp8_products.distance(torch.tensor([1.0, 2.0]), one) == pytest.approx(2**-0.5)


def test_fp32_is_exact_inside_and_as_before_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")
    monkeypatch.setattr(torch, "set_float32_matmul_precision", seen.append)
    list(fp8_products.measure("emulate", SIZE, CPU))
    assert seen == ["highest", "high"]


def test_a_backend_that_cannot_be_had_says_why() -> None:
    rows: Any = list(fp8_products.measure("scaled_mm", SIZE, CPU))
    assert [row.value for row in rows] == [None, None] and all("no GPU" in row.not_run for row in rows)
