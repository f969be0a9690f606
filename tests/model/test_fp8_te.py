"""What our layers ask of Transformer Engine, against a stand-in with its interface (2.20); the package itself has not run."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F

from r1_lightning.model import fp8_precision, fp8_te
from r1_lightning.model.backbone import DeepSeekBackbone
from r1_lightning.model.fp8_precision import FP8Precision
from r1_lightning.model.precision import PlainPrecision
from r1_lightning.types.errors import InvalidInput
from tests.model.tiny import normal, pack, random_documents, tiny
from tests.support import fake_te

# Widths in multiples of 16, as Transformer Engine multiplies them.
WIDE = tiny(q_lora_rank=16, kv_lora_rank=16, qk_nope_head_dim=16, qk_rope_head_dim=16, v_head_dim=16, d_ff_dense=48)


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, module in fake_te.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
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
    assert fake_te.REGIONS == []


def test_layers_without_numbers_and_copies() -> None:
    """What a GPU check makes first: shapes alone. A copy, as of a frozen reference, multiplies by its own weights."""
    precision = FP8Precision("te", "fp32")
    with torch.device("meta"):
        layers = precision.linear(32, 16, True), precision.grouped_linear(4, 32, 16, True)
    assert [p.device.type for layer in layers for p in layer.parameters()] == ["meta", "meta"]
    grouped = precision.grouped_linear(2, 32, 16, True)
    with torch.no_grad():
        grouped.get_parameter("weight").copy_(normal(2, 32, 16))
        copied = copy.deepcopy(grouped)
        copied.get_parameter("weight").mul_(2.0)
    x, ends = normal(5, 32, seed=1), torch.tensor([3, 5], dtype=torch.int32)
    torch.testing.assert_close(copied(x, ends), 2 * grouped(x, ends), rtol=1e-6, atol=1e-6)


def test_widths_that_it_cannot_multiply_are_refused() -> None:
    with pytest.raises(InvalidInput, match="widths in multiples of 16; a layer of this model has 24"):
        FP8Precision("te").linear(32, 24, True)
