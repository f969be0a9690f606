"""The calls that are recorded are those that our layers make."""

from __future__ import annotations

import sys

import pytest
import torch

from benchmarks.te import calls
from benchmarks.te.calls import calls_made
from r1_lightning.model import fp8_te


def test_every_call_is_recorded_once() -> None:
    """Two layers, padding to 16 rows and back, two regions of the same kind, one recipe twice."""
    made = [str(call) for call in calls_made()]
    settings = "bias=, device=, init_method=, params_dtype="
    assert made[0] == f"pytorch.Linear.__init__(in_features, out_features, {settings})"
    assert f"pytorch.GroupedLinear.__init__(num_gemms, in_features, out_features, {settings})" in made
    assert "common.recipe.QParams.__init__(power_2_scale=)" in made and "pytorch.Linear.forward(inp)" in made
    assert {call.target for call in calls_made()} == set(calls.MEANT) and len(made) == len(set(made))


def test_a_call_that_nobody_wrote_down_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(calls.MEANT, "pytorch.Linear.forward", ("inp", "is_first_microbatch"))
    with pytest.raises(ValueError, match=r"pytorch.Linear.forward was given 1 arguments without a name"):
        calls_made()


def test_nothing_of_the_stand_in_stays() -> None:
    calls_made()
    assert not any(name.startswith("transformer_engine") for name in sys.modules)
    assert fp8_te._layers.cache_info().currsize == 0
    with pytest.raises(ModuleNotFoundError):
        fp8_te.block_recipe(calls.Recipe())
    assert torch.get_default_device().type == "cpu"
