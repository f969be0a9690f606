"""Means over windows, since when something lasts, and what share of the highest reward a run has."""

from __future__ import annotations

import math

import pytest

from r1_lightning.review.facts import Facts, Finding, chosen, lasting, mean_above, means_of, median_above, medians_of
from r1_lightning.review.series import Series


def curve(*values: float) -> Series:
    return Series(tuple(range(len(values))), values)


def test_a_mean_takes_ten_points_or_all_of_fewer() -> None:
    assert means_of(curve(*range(12))) == [4.5, 5.5, 6.5]
    assert means_of(curve(1, 2, 3, 4, 5)) == [3.0]
    assert means_of(curve(1, 2, 3, 4)) == []
    assert medians_of(curve(1, 2, 3, 4, 500)) == [3]


def test_since_when_it_lasts() -> None:
    """Ten points above 1 in steps 10 to 19: the mean of 10 is above 1 from the window of steps 6 to 15 on (6 * 2 / 10)."""
    series = curve(*[0.0] * 10, *[2.0] * 10)
    assert lasting(series, means_of(series), lambda value: value > 1.1) == Finding(2.0, 6)
    assert lasting(series, means_of(series), lambda value: value > 2) is None
    assert lasting(curve(), [], lambda value: True) is None


def test_what_healed_is_no_complaint() -> None:
    facts = Facts({"a": curve(*[2.0] * 20, *[0.0] * 10)})
    assert mean_above(facts, "a", 1.0) is None
    assert mean_above(Facts({"a": curve(*[2.0] * 20)}), "a", 1.0) == Finding(2.0, 0)
    assert mean_above(Facts({}), "a", 1.0) is None


def test_one_tall_point_moves_a_mean_and_no_median() -> None:
    facts = Facts({"a": curve(*[0.0] * 9, 100.0)})
    assert mean_above(facts, "a", 1.0) == Finding(10.0, 0)
    assert median_above(facts, "a", 1.0) is None


def test_points_by_step() -> None:
    assert chosen(curve(5, 6, 7), lambda step: step % 2 == 0) == Series((0, 2), (5, 7))


@pytest.mark.parametrize(
    ("rewards", "weights", "share"),
    [
        ([1.0] * 5, {"accuracy": "1.0", "format": "1.0"}, 0.5),
        ([1.0] * 5, {}, 1.0),
        ([1.0] * 5, {"accuracy": "0.0", "score": "4", "penalty": "-1"}, 0.25),
        ([1.5] * 5, {"accuracy": "1.0"}, None),  # more than the weights can give: another scale
        ([-0.1] * 5, {"accuracy": "1.0"}, None),
        ([math.nan] * 5, {"accuracy": "1.0"}, None),
        ([1.0] * 4, {"accuracy": "1.0"}, None),  # too few
    ],
)
def test_the_share_of_the_highest_reward(rewards: list[float], weights: dict[str, str], share: float | None) -> None:
    settings = {f"reward.weights.{name}": weight for name, weight in weights.items()}
    assert Facts({"rollout/reward_mean": curve(*rewards)}, settings).reward_share() == share
