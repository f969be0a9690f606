"""What the tests of rules share: a healthy run of 40 steps in the shape of the miniature's, and one with some curves replaced."""

from __future__ import annotations

from collections.abc import Sequence

from r1_lightning.review.advisories import Advisory, advisories
from r1_lightning.review.facts import Facts
from r1_lightning.review.series import Series

STEPS = 40
SETTINGS = {
    "reward.weights.accuracy": "1.0",
    "reward.weights.format": "1.0",
    "rollout.minibatches_per_rollout": "2",
    "rollout._target_": "RolloutConfig",
    "precision.compute": "fp32",
}


def line(first: float, last: float) -> list[float]:
    """From `first` to `last` in STEPS equal steps."""
    return [first + (last - first) * step / (STEPS - 1) for step in range(STEPS)]


RL = {
    "rollout/reward_mean": line(0.6, 1.8),
    "rollout/accuracy_mean": line(0.3, 0.9),
    "rollout/completion_tokens_mean": line(18, 28),
    "rollout/finished_fraction": [0.999] * STEPS,
    "rollout/zero_variance_fraction": line(0.0, 0.3),
    "rollout/mixed_language_fraction": [0.002] * STEPS,
    "rollout/verifier_timeouts": [0.0] * STEPS,
    "rollout/unjudged_fraction": [0.0] * STEPS,
    "policy/entropy": line(0.3, 0.05),
    "policy/kl_ref": line(0.0, 0.1),
    "policy/kl_old": [1e-13, 0.001] * (STEPS // 2),
    "policy/clip_fraction": [0.0, 0.005] * (STEPS // 2),
    "train/loss": [0.0] * STEPS,
    "train/grad_norm": line(0.6, 0.2),
    "train/skipped_step": [0.0] * STEPS,
    "optim/lr": [1e-4] * STEPS,
    "perf/tokens_per_s": line(2000, 3000),
    "moe/max_violation": [0.4] * STEPS,
}
PRETRAINING = {
    "train/loss": line(6.0, 0.8),
    "train/grad_norm": line(5.0, 0.2),
    "train/skipped_step": [0.0] * STEPS,
    "optim/lr": [*line(0.0, 3e-3)[1:], 0.0],
    "perf/tokens_per_s": line(3000, 6000),
    "moe/max_violation": line(2.6, 0.05),
}


def found(
    base: dict[str, list[float]],
    changes: dict[str, Sequence[float]] | None = None,
    settings: dict[str, str] | None = None,
    final: dict[str, float] | None = None,
) -> list[Advisory]:
    """The advisories of a healthy run with `changes`; a curve of its own length counts from step 0."""
    curves = {**base, **(changes or {})}
    series = {name: Series(tuple(range(len(values))), tuple(values)) for name, values in curves.items()}
    return advisories(Facts(series, {**SETTINGS, **(settings or {})}, final or {}))


def names(advisories: Sequence[Advisory]) -> list[str]:
    return [one.name for one in advisories]
