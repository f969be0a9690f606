"""The report on FP8 beside BF16: its differences, interval and claims by hand."""

from __future__ import annotations

import pytest

from r1_lightning.run.commands.report_runs import planned
from tests.reports.recipes import recipe_module

recipe = recipe_module("fp8_vs_bf16")


def row(seed: int, arm: str, loss: float, step: int = 250) -> dict[str, str]:
    return {"seed": str(seed), "arm": arm, "measure": "loss", "step": str(step), "value": str(loss)}


def test_windows_are_whole_and_do_not_overlap() -> None:
    assert list(recipe.windows([4.0, 2.0, 1.0, 3.0, 9.0], 2)) == [(0, 3.0), (2, 2.0)]


def test_the_table_by_hand() -> None:
    rows = [row(0, "bf16", 2.0), row(0, "fp8", 2.004), row(0, "blocks", 2.1), row(1, "bf16", 4.0), row(1, "fp8", 4.04)]
    lines = recipe.render(rows).splitlines()
    # 0.004 / 2 = 0.2 %, 0.04 / 4 = 1 %, 0.1 / 2 = 5 %.
    assert "| 250 to 299 | not run | +0.600 [+0.200, +1.000] | +5.000 [+5.000, +5.000] |" in lines
    # The mean 0.6, half of the interval 12.706 x 0.565685 / sqrt(2) = 5.0824.
    assert "| fp8 | 3.0220 [2.0040, 4.0400] | +0.600 [-4.482, +5.682] | not run |" in lines
    assert (
        "| FP8's loss is within 0.25 % of BF16's in every window | holds (+0.200) | DOES NOT HOLD (+1.000) |" in lines
    )
    assert "| blocks of 128 x 128 on gradients end with a higher loss than tiles | holds (+4.800) | not run |" in lines


def test_a_difference_to_the_other_side_counts_as_well() -> None:
    lines = recipe.render([row(0, "bf16", 2.0), row(0, "fp8", 1.99)]).splitlines()
    assert "| FP8's loss is within 0.25 % of BF16's in every window | DOES NOT HOLD (-0.500) |" in lines


def test_precisions_have_the_same_steps_and_fingerprints_of_their_own() -> None:
    found = {arm: planned(recipe.overrides(0, arm)) for arm in recipe.ARMS}
    assert len({node.fingerprint for node in found.values()}) == 4


@pytest.mark.parametrize("numbers", [[], [1.0]])
def test_one_seed_has_no_interval(numbers: list[float]) -> None:
    assert recipe.t_interval(numbers) == "not run"


def test_the_whole_run_by_hand() -> None:
    """Losses 2, 1, 1, 1, 1, 1 and 2, 1.14, 1, 1, 1, 1: 0.14 of 7 is 2 %. A run that lacks a window has no sum."""
    base = {step: 2.0 if step == 0 else 1.0 for step in range(0, 300, 50)}
    of_seed = {"bf16": base, "fp8": base | {50: 1.14}, "fp32": {0: 2.0}}
    assert recipe.whole_run(of_seed, "fp8") == pytest.approx(2.0)
    assert recipe.whole_run(of_seed, "fp32") is None and recipe.whole_run({}, "fp8") is None
