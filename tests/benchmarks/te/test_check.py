"""What the check says of a package with Transformer Engine's interface, of one that has changed, and of the committed result."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
from torch import Tensor, nn

from benchmarks.te import check
from benchmarks.te.check import CHECKS, FAILS, HOLDS, OPEN, UNSEEN, rows, titles
from r1_lightning.functional import fp8_products
from r1_lightning.functional.fp8_products import Recipe
from tests.architecture.house import ROOT
from tests.support import fake_te

COMPUTED = {what: checked for what, checked in CHECKS.items() if checked.__module__.endswith("computed")}
LAYERS = "layers have the keys, shapes and types of `fp8_emulated` and load both ways, strictly"


@pytest.fixture(autouse=True)
def package(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The stand-in, in FP8 by the emulation; what a test sets on it is as if the package had changed."""
    monkeypatch.setattr(fake_te, "multiply", _multiply)
    for what in COMPUTED:  # which take seconds: two tests run them
        monkeypatch.setitem(CHECKS, what, lambda: "")
    made = fake_te.modules()
    for name, module in made.items():
        monkeypatch.setitem(sys.modules, name, module)
    yield made["transformer_engine.pytorch"]


def _multiply(x: Tensor, weight: Tensor) -> Tensor:
    _, recipe = fake_te.REGIONS[-1]
    return fp8_products.linear(x, weight, Recipe(recipe.fp8_quant_fwd_inp.power_2_scale))


def failures() -> dict[str, str]:
    return {row.what: row.seen for row in rows() if row.verdict == FAILS}


def test_everything_is_said_once_and_holds_where_nothing_has_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    for what, checked in COMPUTED.items():
        monkeypatch.setitem(CHECKS, what, checked)
    found = rows()
    assert [row.what for row in found] == titles() and len(set(titles())) == len(titles())
    assert [(row.what, row.seen) for row in found if row.verdict == FAILS] == []
    assert [row.what for row in found if row.verdict == OPEN] == list(UNSEEN)


def test_another_order_another_name_and_a_name_for_anything_are_found(package: Any) -> None:
    class Linear(fake_te.Linear):
        def __init__(self, out_features: int, in_features: int, **rest: Any) -> None:
            super().__init__(in_features, out_features, **rest)

    class Fp8Padding(fake_te.Fp8Padding):
        def __init__(self, groups: int, align_size: int) -> None:
            super().__init__(groups, align_size)

    package.Linear, package.Fp8Padding = Linear, Fp8Padding
    found = failures()
    assert found["pytorch.Fp8Padding.__init__(num_gemms, align_size)"].startswith("the order of arguments is ('groups'")
    linear = "pytorch.Linear.__init__(in_features, out_features, bias=, device=, init_method=, params_dtype=)"
    assert found[linear].startswith("the order of arguments is ('out_features', 'in_features')")
    package.Linear = type(
        "Linear", (fake_te.Linear,), {"__init__": lambda self, in_features, out_features, **rest: None}
    )
    assert failures()[linear].startswith("what no argument has the name of is ['bias', 'device'")


def test_an_argument_that_is_gone_and_one_that_is_wanted_are_found(package: Any) -> None:
    class autocast(fake_te.autocast):
        def __init__(self, enabled: bool = True) -> None:
            super().__init__(enabled)

    class Fp8Unpadding(fake_te.Fp8Unpadding):
        def forward(self, inp: Any, m_splits: Any, padded: Any) -> Any: ...  # type: ignore[override]

    package.autocast, package.Fp8Unpadding = autocast, Fp8Unpadding
    found = failures()
    assert "unexpected keyword argument 'recipe'" in found["pytorch.autocast.__init__(enabled=, recipe=)"]
    assert "missing a required argument: 'padded'" in found["pytorch.Fp8Unpadding.forward(inp, m_splits)"]


def test_another_recipe_is_found(package: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fake_te.Float8BlockScaling, "x_block_scaling_dim", 2)
    monkeypatch.setattr(
        fake_te.Float8BlockScaling.__init__, "__defaults__", (False, fake_te.Format.E4M3, 2, 2, 1, None)
    )
    found = failures()
    assert found["the recipe is DeepSeek's, with the scales that we ask for"] == (
        "the dimensions of tiles is (2, 2, 1), not (1, 2, 1)"
    )
    assert found["the quantisers have the recipe's scales and tiles"] == "dimensions of forward is [2, 2], not [1, 2]"


def test_another_layout_of_scales_is_found(package: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fake_te.Float8BlockQuantizer, "get_scale_shape", lambda self, shape, columnwise: (2, 4))
    wanted = "shapes of scales, dimension 1, is [(2, 4), (2, 4)], not [(3, 132), (2, 272)]"
    assert failures() == {"bytes and scales are laid out as `gpu_check` reads them": wanted}


def test_other_products_are_found(package: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Products that are not in FP8; and gradients that reach nothing."""
    (layers, _), (_, model) = COMPUTED.values(), COMPUTED.values()
    monkeypatch.setattr(fake_te, "multiply", lambda x, weight: x @ weight.T)
    with (
        check._a_gpu_said_to_be_there(),
        pytest.raises(check.Differs, match=r"other numbers: y of linear by 3\.\de-02, dx of linear by 3"),
    ):
        layers()
    monkeypatch.setattr(fake_te, "multiply", lambda x, weight: _multiply(x, weight.detach()))
    with check._a_gpu_said_to_be_there(), pytest.raises(check.Differs, match=r"gradients are missing: .'blocks.0"):
        model()


def test_state_that_comes_back_is_found(package: Any) -> None:
    """A layer with one more tensor in its state."""

    class Linear(fake_te.Linear):
        def __init__(self, *given: Any, **named: Any) -> None:
            super().__init__(*given, **named)
            self.register_buffer("scale", nn.Parameter().detach())

    package.Linear = Linear
    assert failures()[LAYERS].startswith(
        "the state is {'weight': (16, 32, torch.float32), 'scale': (0, torch.float32)}"
    )


def test_weights_that_are_not_found_and_names_that_are_taken_are_found(package: Any) -> None:
    class GroupedLinear(fake_te.GroupedLinear):
        def _get_weight_tensors(self) -> Any:
            return super()._get_weight_tensors()[::-1]

    package.GroupedLinear = GroupedLinear
    package.Linear = type("Linear", (fake_te.Linear,), {"recipe": None})
    found = failures()
    assert found["experts' weights are found where they are lent, and have gradients"].startswith("the matrices found")
    assert found["names that our layers add are free"] == "names that are taken is ['recipe'], not []"


def test_without_a_driver_layers_cannot_be_made_and_that_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check itself says that there is a GPU; outside of it there is none."""
    rows()
    with pytest.raises(RuntimeError, match="needs CUDA"):
        fake_te.Linear(16, 16)
    assert check.fp8_precision.reason_against("te") is not None


def test_the_committed_result_is_of_these_calls_and_checks() -> None:
    """Who changes `model/fp8_te.py` runs `python scripts/te_check.py` again, where Transformer Engine is installed."""
    text = (ROOT / "reports/te/README.md").read_text(encoding="utf-8")
    lines = [line.strip("|").split(" | ") for line in text.splitlines() if line.startswith("| ")][1:]
    assert [line[0].strip() for line in lines] == [title.replace("*", "\\*") for title in titles()]
    verdicts = {line[0].strip(): line[1] for line in lines}
    assert {verdicts[title] for title in CHECKS} == {HOLDS} and "transformer-engine 2.20" in text
    assert [line[1] for line in lines] == [HOLDS] * (len(lines) - len(UNSEEN)) + [OPEN] * len(UNSEEN)
