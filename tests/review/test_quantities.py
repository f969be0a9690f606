"""What each measure can be, by its name and the run's weights."""

from __future__ import annotations

import math

import pytest

from r1_lightning.review.quantities import ANY, NOT_NEGATIVE, SHARE, limits


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("rollout/accuracy_mean", SHARE),
        ("rollout/format_mean", SHARE),
        ("rollout/language_mean", SHARE),
        ("rollout/mixed_language_fraction", SHARE),
        ("policy/clip_fraction", SHARE),
        ("rollout/completion_tokens_mean", NOT_NEGATIVE),
        ("policy/entropy", NOT_NEGATIVE),
        ("train/loss", NOT_NEGATIVE),
        ("rollout/score_mean", ANY),  # reward.rewards.NAME.squash=none: any number
        ("rollout/overlong_mean", ANY),
        ("rollout/policy_logprob_mean", ANY),
    ],
)
def test_by_its_name(name: str, expected: tuple[float, float]) -> None:
    assert limits(name, {}) == expected


def test_a_reward_by_its_weights() -> None:
    weights = {"reward.weights.accuracy": "1.0", "reward.weights.format": "0.5", "reward.weights.language": "-0.25"}
    assert limits("rollout/reward_mean", weights) == (-0.25, 1.5)
    for other in ({"reward.weights.score": "1.0"}, {"reward.weights.format": "x"}):  # any score, and no number
        assert limits("rollout/reward_mean", {**weights, **other}) == ANY
    assert limits("rollout/reward_mean", {}) == ANY and math.isinf(ANY[0])
