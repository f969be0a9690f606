"""Each rule for every stage names its fault and since when; a healthy run breaks none."""

from __future__ import annotations

import math

import pytest

from r1_lightning.review.advisories import advisories
from r1_lightning.review.facts import Facts
from r1_lightning.review.series import Series
from tests.review.rule_cases import PRETRAINING, RL, STEPS, found, line, names


def test_a_healthy_run_breaks_none() -> None:
    assert found(PRETRAINING) == [] and found(RL) == []


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_not_finite(bad: float) -> None:
    """At any step, also where it healed."""
    (told,) = found(PRETRAINING, {"train/loss": [6.0] * 5 + [bad] + line(5.0, 0.8)[6:]})
    assert (told.name, told.from_step, told.is_failure) == ("not finite", 5, True)
    assert told.exactly == f"train/loss is {'NaN' if math.isnan(bad) else 'infinite'}"
    # stage.on_nonfinite=skip: the step took no effect, and one of 10 is allowed.
    skip = {"train/skipped_step": [0.0] * 5 + [1.0] + [0.0] * 34}
    assert found(PRETRAINING, {"train/loss": [6.0] * 5 + [bad] + line(5.0, 0.8)[6:], **skip}) == []
    assert names(found(RL, {"policy/kl_ref": [0.0] * 3 + [bad] * 37}))[0] == "not finite"


def test_skipped_steps() -> None:
    """2 of the last 10 are more than 10 %; the mean of 10 is above it from the window of steps 29 to 38 on."""
    (told,) = found(RL, {"train/skipped_step": [0.0] * 37 + [1.0, 1.0, 0.0]})
    assert (told.name, told.value, told.from_step) == ("skipped steps", 0.2, 29)
    assert found(RL, {"train/skipped_step": [0.0] * 39 + [1.0]}) == []


def test_a_loss_that_does_not_fall() -> None:
    (told,) = found(PRETRAINING, {"train/loss": [6.1, 6.0] * 20})
    assert (told.name, told.value, told.from_step, told.is_failure) == ("loss not falling", 1.0, 0, True)
    assert found(PRETRAINING, {"train/loss": [6.0] * 19}) == []  # too short to say
    assert found(RL, {"train/loss": [0.1] * STEPS}) == []  # RL's loss says nothing


@pytest.mark.parametrize(
    ("kind", "own", "has_init_from", "is_told"),
    [
        ("PretrainModule", {}, False, True),
        ("PretrainModule", {"stage.inputs.base": "pretrain"}, False, False),  # experiment=r1_zero_tiny_control
        ("PretrainModule", {"stage.inputs.base.experiment": "r1_base_tiny"}, False, False),
        ("PretrainModule", {"stage.inputs.baseline": "x"}, False, True),
        ("PretrainModule", {}, True, False),
        ("SFTModule", {"stage.inputs.base": "pretrain"}, True, True),
    ],
)
def test_pretraining_that_goes_on_need_not_lower_its_loss(
    kind: str, own: dict[str, str], has_init_from: bool, is_told: bool
) -> None:
    flat = {"train/loss": Series(tuple(range(STEPS)), (0.8,) * STEPS)}
    facts = Facts(flat, {"stage._target_": kind, **own}, has_init_from=has_init_from)
    assert names(advisories(facts)) == ["loss not falling"] * is_told


def test_a_loss_that_rises_again() -> None:
    """Lowest mean: steps 11 to 20, all 1.0; with 2.0 from step 21 on the mean of 10 is above 1.5 from steps 17 to 26 on."""
    loss = [6.0] * 11 + [1.0] * 10 + [2.0] * 19
    (told,) = found(PRETRAINING, {"train/loss": loss})
    assert (told.name, told.value, told.from_step) == ("loss risen", 2.0, 17)
    # Preferences: from 0.69 to 0.004, then 0.012. That is three times the lowest, and 1.2 % of the first.
    assert found(PRETRAINING, {"train/loss": [0.69] * 11 + [0.004] * 10 + [0.012] * 19}) == []


def test_a_gradient_that_jumps() -> None:
    """Medians of 10: above 0.5 * 10 once 6 of 10 are."""
    (told,) = found(RL, {"train/grad_norm": [0.5] * 20 + [6.0] * 20})
    assert (told.name, told.value) == ("gradient jump", 12.0) and told.from_step == 16
    assert found(RL, {"train/grad_norm": [0.5] * 20 + [6.0] * 5 + [0.5] * 15}) == []


def test_nothing_moves() -> None:
    (told,) = found(PRETRAINING, {"optim/lr": [1e-3] * 25 + [0.0] * 15})
    assert (told.name, told.from_step, told.is_failure) == ("nothing moves", 25, True)
    assert names(found(RL, {"train/grad_norm": [0.0] * STEPS})) == ["nothing moves"]
    solved = {"train/grad_norm": [0.5] * 20 + [0.0] * 20, "rollout/reward_mean": [2.0] * STEPS}
    assert found(RL, solved) == []  # nothing is left to learn


def test_low_utilisation() -> None:
    (told,) = found(RL, {"perf/tokens_per_s": [2000.0] * 20 + [400.0] * 20})
    assert (told.name, told.value, told.is_failure) == ("low utilisation", 0.2, False)
    assert found(RL, {"perf/tokens_per_s": [2000.0] * 20 + [600.0] * 20}) == []


def test_idle_experts() -> None:
    (told,) = found(PRETRAINING, {"moe/max_violation": [2.5] * 60})
    assert told.name == "idle experts" and told.value == 2.5
    assert found(PRETRAINING, {"moe/max_violation": [2.5] * 49}) == []  # a model that begins may


def test_a_run_too_short_breaks_none() -> None:
    short = {name: values[:4] for name, values in PRETRAINING.items()}
    assert found(short, {"train/grad_norm": [0.0] * 4}) == []
