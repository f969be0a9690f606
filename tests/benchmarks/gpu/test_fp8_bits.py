"""Equal bits are found equal, in Transformer Engine's layout too, and one that differs is found."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.gpu import fp8_bits
from benchmarks.gpu.device import Meter
from r1_lightning.functional.fp8_tiles import BLOCK, COLUMN_TILE, ROW_TILE, quantise

CPU = Meter(torch.device("cpu"))
SHAPES = ((130, 272), (3, 5))


def filled(scales: Tensor) -> Tensor:
    """The last dimension filled up to a multiple of 4, as `Float8BlockQuantizer.get_scale_shape` (2.20) has it."""
    return F.pad(scales, (0, -scales.shape[1] % 4), value=7.0).contiguous()


class Quantiser:
    """Our numbers in Transformer Engine's layout: data of columns and scales of tiles stand transposed."""

    def __init__(
        self, fp8_dtype: Any, *, rowwise: bool, columnwise: bool, force_pow_2_scales: bool, block_scaling_dim: int
    ) -> None:
        assert (fp8_dtype, rowwise, columnwise) == ("E4M3", True, True)
        self.power_of_two, self.dimensions = force_pow_2_scales, block_scaling_dim

    def __call__(self, x: Tensor) -> Any:
        is_tile = self.dimensions == 1
        upright = quantise(x, ROW_TILE if is_tile else BLOCK, self.power_of_two)
        lying = quantise(x, COLUMN_TILE if is_tile else BLOCK, self.power_of_two)
        return SimpleNamespace(
            _rowwise_data=upright.values.view(torch.uint8),
            _columnwise_data=lying.values.T.contiguous().view(torch.uint8),
            _rowwise_scale_inv=filled(upright.inverse_scales.T if is_tile else upright.inverse_scales),
            _columnwise_scale_inv=filled(lying.inverse_scales if is_tile else lying.inverse_scales.T),
        )


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> Any:
    modules = {name: ModuleType(name) for name in ("transformer_engine", "transformer_engine.pytorch")}
    te: Any = modules["transformer_engine.pytorch"]
    te.Float8BlockQuantizer, te.DType = Quantiser, SimpleNamespace(kFloat8E4M3="E4M3")
    modules["transformer_engine"].pytorch = te  # type: ignore[attr-defined]
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(fp8_bits, "reason_against", lambda backend: None)
    return te


def test_the_rehearsal_compares_every_way_of_cutting() -> None:
    """2 shapes x 5 contents x 2 types x 2 kinds of scales x 3 tiles."""
    (row,) = fp8_bits.measure("emulate", SHAPES, CPU)
    assert (row.value, row.unit) == (120.0, "of 120 matrices with the emulation's bytes and scales")
    assert not row.failed and row.beside == ""


def test_transformer_engines_layout_is_read(package: Any) -> None:
    """Blocks are compared both ways round, so there are 4 ways of cutting."""
    (row,) = fp8_bits.measure("te", SHAPES, CPU)
    assert row.value == 160.0 and not row.failed, row.beside


def test_one_byte_and_one_scale_that_differ_are_failures(package: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Off(Quantiser):
        def __call__(self, x: Tensor) -> Any:
            made = super().__call__(x)
            part = made._rowwise_data if self.dimensions == 1 else made._columnwise_scale_inv.view(torch.int32)
            part[0, 0] += 1
            return made

    package.Float8BlockQuantizer = Off
    (row,) = fp8_bits.measure("te", SHAPES[1:], CPU)
    assert row.failed and row.value == 80.0 - 40.0  # of each pair one is right
    assert row.beside.startswith(
        "different: normal 3 x 5 float32, 1 x 128, powers of two; normal 3 x 5 float32, 128 x 128"
    )
    assert row.beside.endswith("; ...")


def test_a_backend_that_cannot_be_had_says_why() -> None:
    (row,) = fp8_bits.measure("te", SHAPES, CPU)
    assert row.value is None and row.not_run.startswith("torch finds no GPU here") and not row.failed
