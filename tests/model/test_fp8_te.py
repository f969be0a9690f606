"""What our layers ask of Transformer Engine, against a stand-in with its interface (2.20); the package itself has not run."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from r1_lightning.model import fp8_precision, fp8_te
from r1_lightning.model.backbone import DeepSeekBackbone
from r1_lightning.model.fp8_precision import FP8Precision
from r1_lightning.model.precision import PlainPrecision
from r1_lightning.types.errors import InvalidInput
from tests.model.tiny import normal, pack, random_documents, tiny

REGIONS: list[tuple[bool, Any]] = []  # of the layers that are computing now
# Widths in multiples of 16, as Transformer Engine multiplies them.
WIDE = tiny(q_lora_rank=16, kv_lora_rank=16, qk_nope_head_dim=16, qk_rope_head_dim=16, v_head_dim=16, d_ff_dense=48)


class Stateful(nn.Module):
    def get_extra_state(self) -> Tensor:
        return torch.zeros(1)

    def set_extra_state(self, state: Any) -> None:
        pass


def weight(rows: int, columns: int, settings: dict[str, Any]) -> nn.Parameter:
    assert settings.pop("bias") is False and settings["params_dtype"] == torch.float32
    made = torch.empty(rows, columns, dtype=settings["params_dtype"], device=settings["device"])
    settings["init_method"](made)
    return nn.Parameter(made)


class Linear(Stateful):
    def __init__(self, in_features: int, out_features: int, **settings: Any) -> None:
        super().__init__()
        self.weight = weight(out_features, in_features, settings)

    def forward(self, x: Tensor) -> Tensor:
        assert len(x) % 16 == 0 and REGIONS
        return F.linear(x, self.weight.to(x.dtype))


class GroupedLinear(Stateful):
    def __init__(self, num_gemms: int, in_features: int, out_features: int, **settings: Any) -> None:
        super().__init__()
        self.num_gemms = num_gemms
        for i in range(num_gemms):
            self.register_parameter(f"weight{i}", weight(out_features, in_features, dict(settings)))

    def forward(self, x: Tensor, m_splits: list[int]) -> Tensor:
        assert all(rows % 16 == 0 for rows in m_splits) and sum(m_splits) == len(x) and REGIONS
        weights = [getattr(self, f"weight{i}") for i in range(self.num_gemms)]
        assert all(part.is_contiguous() for part in weights)
        return torch.cat([F.linear(part, w.to(x.dtype)) for part, w in zip(x.split(m_splits), weights, strict=True)])


class Fp8Padding(nn.Module):
    def __init__(self, num_gemms: int, align_size: int) -> None:
        super().__init__()
        self.align = align_size

    def forward(self, x: Tensor, m_splits: list[int]) -> tuple[Tensor, list[int]]:
        filled = [F.pad(part, (0, 0, 0, -len(part) % self.align)) for part in x.split(m_splits)]
        return torch.cat(filled), [len(part) for part in filled]


class Fp8Unpadding(Fp8Padding):
    def forward(self, x: Tensor, m_splits: list[int]) -> Tensor:  # type: ignore[override]
        filled = [-(-rows // self.align) * self.align for rows in m_splits]
        return torch.cat([part[:rows] for part, rows in zip(x.split(filled), m_splits, strict=True)])


@contextmanager
def autocast(enabled: bool, recipe: Any) -> Iterator[None]:
    REGIONS.append((enabled, recipe))
    yield
    REGIONS.pop()


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    names = (
        "transformer_engine",
        "transformer_engine.pytorch",
        "transformer_engine.common",
        "transformer_engine.common.recipe",
    )
    modules = {name: ModuleType(name) for name in names}
    for part in (Linear, GroupedLinear, Fp8Padding, Fp8Unpadding, autocast):
        setattr(modules["transformer_engine.pytorch"], part.__name__, part)
    modules["transformer_engine"].pytorch = modules["transformer_engine.pytorch"]  # type: ignore[attr-defined]
    modules["transformer_engine.common.recipe"].Float8BlockScaling = SimpleNamespace  # type: ignore[attr-defined]
    modules["transformer_engine.common.recipe"].QParams = SimpleNamespace  # type: ignore[attr-defined]
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(fp8_precision, "reason_against", lambda backend: None)
    fp8_te._layers.cache_clear()
    yield
    fp8_te._layers.cache_clear()


@pytest.mark.parametrize("power_of_two", [True, False])
def test_the_recipe(power_of_two: bool) -> None:
    recipe = fp8_te.block_recipe(FP8Precision("te", power_of_two_scales=power_of_two).recipe)
    asked = [recipe.fp8_quant_fwd_inp, recipe.fp8_quant_fwd_weight, recipe.fp8_quant_bwd_grad]
    assert [part.power_2_scale for part in asked] == [power_of_two] * 3


def test_a_model_has_the_names_and_shapes_of_others_and_trains() -> None:
    model, twin = DeepSeekBackbone(WIDE, FP8Precision("te", "fp32")), DeepSeekBackbone(WIDE, PlainPrecision())
    assert {name: t.shape for name, t in model.state_dict().items()} == {
        name: t.shape for name, t in twin.state_dict().items()
    }
    model.load_state_dict(twin.state_dict(), strict=True)
    twin.load_state_dict(model.state_dict(), strict=True)
    batch = pack([random_documents([7, 3, 10], 61, 0)])
    for part in (model, twin):
        part.hidden(batch).hidden.square().sum().backward()
    for (name, p), q in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None)
        if q.grad is not None:
            torch.testing.assert_close(p.grad, q.grad, rtol=1e-4, atol=1e-5, msg=name)


def test_any_number_of_rows() -> None:
    """5 rows become 16 and 5 again; experts with 3, 0, 5 and 1 rows 16, 0, 16 and 16."""
    precision = FP8Precision("te", "fp32")
    layer, grouped = precision.linear(32, 16, True), precision.grouped_linear(4, 32, 16, True)
    with torch.no_grad():
        grouped.get_parameter("weight").copy_(normal(4, 32, 16))
    x, ends = normal(9, 32, seed=1), torch.tensor([3, 3, 8, 9], dtype=torch.int32)
    assert layer(x[:5].view(1, 5, 32)).shape == (1, 5, 16)
    torch.testing.assert_close(layer(x[:5]), F.linear(x[:5], layer.weight))
    loop = [x[a:b] @ w for a, b, w in zip([0, 3, 3, 8], ends.tolist(), grouped.get_parameter("weight"), strict=True)]
    torch.testing.assert_close(grouped(x, ends), torch.cat(loop), rtol=1e-5, atol=1e-5)
    assert REGIONS == []


def test_widths_that_it_cannot_multiply_are_refused() -> None:
    with pytest.raises(InvalidInput, match="widths in multiples of 16; a layer of this model has 24"):
        FP8Precision("te").linear(32, 24, True)
