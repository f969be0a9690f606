"""The stand-in has every name, and enumerations that have what they were asked for."""

from __future__ import annotations

import sys

import pytest

from benchmarks.te import kernels
from tests.support import fake_te


def test_names_are_classes_and_their_names_numbers() -> None:
    """As the package mirrors an enumeration: its own names are all that there are."""
    made = kernels.Kernels("transformer_engine_torch")
    assert isinstance(made.DType, type) and made.DType is made.DType
    assert (made.DType.kByte, made.DType.kInt32, made.DType.kByte) == (0, 1, 0)
    assert set(made.DType.__members__) == {"kByte", "kInt32"}
    assert made.FP8BwdTensors.GRAD_INPUT1 == 1 and made.FP8FwdTensors.GEMM1_WEIGHT == 1  # csrc/common.h
    assert set(made.Backend.__members__) == set() and not isinstance(3, made.DType)
    with pytest.raises(AttributeError, match="__path__"):
        _ = made.__path__


def test_it_is_where_the_package_loads_its_compiled_half(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, module in fake_te.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, kernels.NAME, None)  # what it becomes is undone
    assert not kernels.are_installed()
    kernels.stand_in()
    assert sys.modules[kernels.NAME].anything is not None
    assert sys.modules["transformer_engine.common"].load_framework_extension("torch") is None
