"""The report on FP8 in RL: its losses, interval and claims by hand."""

from __future__ import annotations

from r1_lightning.run.commands.report_runs import planned
from tests.reports.recipes import recipe_module

recipe = recipe_module("fp8_in_rl")


def row(seed: int, arm: str, value: float, measure: str = recipe.ACCURACY) -> dict[str, str]:
    return {"seed": str(seed), "arm": arm, "measure": measure, "value": str(value)}


def test_the_table_by_hand() -> None:
    rows = [row(0, "bf16", 0.8), row(0, "fp8", 0.796), row(0, "fp8_rollouts", 0.7)]
    rows += [row(1, "bf16", 0.5), row(1, "fp8", 0.51), row(1, "fp8_rollouts", 0.475)]
    rows += [row(0, "fp8", 0.001, recipe.MISMATCH), row(0, "fp8_rollouts", 0.003, recipe.MISMATCH)]
    lines = recipe.render(rows).splitlines()
    assert (
        "| strict accuracy, held out | 0.6500 [0.5000, 0.8000] | 0.6530 [0.5100, 0.7960] | 0.5875 [0.4750, 0.7000] |"
        in (lines)
    )
    # 0.004 / 0.8 = 0.5 % and -0.01 / 0.5 = -2 %: mean -0.75, half of the interval 12.706 x 1.767767 / sqrt(2) = 15.88.
    assert "| fp8 | -0.75 [-16.63, +15.13] |" in lines
    # 0.1 / 0.8 = 12.5 % and 0.025 / 0.5 = 5 %: mean 8.75, half 12.706 x 5.303301 / sqrt(2) = 47.65.
    assert "| fp8_rollouts | +8.75 [-38.90, +56.40] |" in lines
    claims = {line.split("|")[1].strip(): line for line in lines if "holds" in line or "HOLD" in line}
    assert [claim.count("DOES NOT HOLD") for claim in claims.values()] == [1, 0, 0]
    wider = claims["sampler and update are further apart with FP8 rollouts alone than with FP8 in both"]
    assert wider.endswith("| holds (+0.002) | not run |")


def test_no_accuracy_in_bf16_is_no_loss() -> None:
    assert recipe.lost({"bf16": {recipe.ACCURACY: 0.0}, "fp8": {recipe.ACCURACY: 0.1}}, "fp8") is None
    assert recipe.lost({"bf16": {recipe.ACCURACY: 0.5}}, "fp8") is None


def test_three_runs_start_from_one_base() -> None:
    found = [planned(recipe.overrides(0, arm)) for arm in recipe.ARMS]
    assert len({node.fingerprint for node in found}) == 3
    assert len({node.inputs["base"].fingerprint for node in found}) == 1


def test_first_minibatches_are_every_second_step() -> None:
    assert recipe.first_minibatches([{"step": str(step)} for step in range(5)]) == [
        {"step": s} for s in ("0", "2", "4")
    ]
