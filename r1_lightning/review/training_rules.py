"""Rules for every stage that trains: loss, gradients, learning rate, speed, experts. RL's loss says nothing, and is not judged."""

from __future__ import annotations

import math

from r1_lightning.review.facts import (
    FEWEST,
    WINDOW,
    Facts,
    Finding,
    lasting,
    means_of,
    medians_of,
    width_of,
)
from r1_lightning.review.rules import Rule
from r1_lightning.review.series import mean_of

LOSS, GRADIENT, RATE, SPEED = "train/loss", "train/grad_norm", "optim/lr", "perf/tokens_per_s"
SKIPPED = "train/skipped_step"
STOPPING = (
    LOSS,
    GRADIENT,
    "value/grad_norm",
)  # end a run, or have a step skipped, where they are no number (stage.on_nonfinite)
FINITE = (*STOPPING, "rollout/reward_mean", "policy/kl_ref", "policy/entropy")
RISE = 0.05  # of the first mean loss, by which a loss must rise at least
LONG_ENOUGH = 20  # logged points for rules that compare the end of a run with its beginning


def _not_finite(facts: Facts, threshold: float) -> Finding | None:
    skipped = facts.of(SKIPPED)
    without = {step for step, value in zip(skipped.steps, skipped.values, strict=True) if value == 1.0}
    found = [
        Finding(value, step, f"{name} is {'NaN' if math.isnan(value) else 'infinite'}")
        for name in FINITE
        for step, value in zip(facts.of(name).steps, facts.of(name).values, strict=True)
        if not math.isfinite(value) and not (name in STOPPING and step in without)
    ]
    return min(found, key=lambda one: one.from_step) if len(found) > threshold else None


def _skipped(facts: Facts, threshold: float) -> Finding | None:
    series = facts.of(SKIPPED)
    return lasting(series, means_of(series), lambda value: value > threshold)


def _not_falling(facts: Facts, threshold: float) -> Finding | None:
    series = facts.of(LOSS)
    if facts.is_rl or facts.goes_on_pretraining or len(series) < LONG_ENOUGH:
        return None
    quarter = len(series) // 4
    first, last = mean_of(series.values[:quarter]), mean_of(series.values[-quarter:])
    if not (math.isfinite(first) and math.isfinite(last)) or first <= 0:
        return None
    return Finding(last / first, series.steps[0]) if last / first >= threshold else None


def _risen(facts: Facts, threshold: float) -> Finding | None:
    series = facts.of(LOSS)
    if facts.is_rl or len(series) < LONG_ENOUGH:
        return None
    means = means_of(series)
    lowest = min((mean for mean in means if math.isfinite(mean)), default=0.0)
    if lowest <= 0:
        return None
    # A loss near 0 (of preferences, of rows seen again) wavers by several times itself: that is no rise.
    least = lowest + RISE * next((mean for mean in means if math.isfinite(mean)), 0.0)
    found = lasting(series, means, lambda value: value > max(threshold * lowest, least))
    # Since the lowest point, not before: a loss begins high.
    return (
        None if found is None or found.from_step == series.steps[0] else Finding(found.value / lowest, found.from_step)
    )


def _gradient_jump(facts: Facts, threshold: float) -> Finding | None:
    series = facts.of(GRADIENT)
    medians = medians_of(series)
    if len(series) < LONG_ENOUGH or not medians or not medians[0] > 0:
        return None
    found = lasting(series, medians, lambda value: value > threshold * medians[0])
    return None if found is None else Finding(found.value / medians[0], found.from_step)


def _nothing_moves(facts: Facts, threshold: float) -> Finding | None:
    share = facts.reward_share()
    if share is not None and share > 0.99:  # all problems are solved: there is nothing to learn
        return None
    found = []
    for name in (GRADIENT, RATE):
        series = facts.of(name)
        if len(series) >= FEWEST and all(value <= threshold for value in series.values[-width_of(series) :]):
            found.append(lasting(series, series.values, lambda value: value <= threshold))
    return min((one for one in found if one is not None), key=lambda one: one.from_step, default=None)


def _slow(facts: Facts, threshold: float) -> Finding | None:
    series = facts.of(SPEED)
    medians = medians_of(series)
    if len(series) < LONG_ENOUGH or not medians:
        return None
    best = max(medians)
    found = lasting(series, medians, lambda value: value < threshold * best)
    return None if found is None or best <= 0 else Finding(found.value / best, found.from_step)


def _idle_experts(facts: Facts, threshold: float) -> Finding | None:
    series = facts.of("moe/max_violation")
    means = means_of(series)
    return lasting(series, means, lambda value: value > threshold) if len(series) >= 5 * WINDOW else None


TRAINING_RULES = (
    Rule(
        "not finite",
        "loss, gradient norm (of a step that was not skipped), reward, KL divergence or entropy is NaN or infinite",
        0.0,
        _not_finite,
        "lower optim.lr, or find the batch: stage.on_nonfinite=stop ends a run at the step",
        is_failure=True,
    ),
    Rule(
        "skipped steps",
        "more than {threshold:.0%} of the last 10 steps were left out: gradient not finite, or no group with different rewards",
        0.1,
        _skipped,
        "lower optim.lr, look for data that give no finite loss, or choose problems that are neither too hard nor too easy",
        SKIPPED,
    ),
    Rule(
        "loss not falling",
        "the mean loss of the last quarter is at least {threshold:g} of the first quarter's (20 steps or more; not in RL, "
        "nor where pre-training goes on)",
        0.99,
        _not_falling,
        "look whether labels fit their inputs, at optim.lr, and whether the input model has seen these data",
        LOSS,
        is_failure=True,
    ),
    Rule(
        "loss risen",
        "the mean loss of 10 steps is over {threshold:g} times the lowest, and 5 % of the first above (20 steps or more, not RL)",
        1.5,
        _risen,
        "lower optim.lr, or give it more optim.warmup_steps",
        LOSS,
    ),
    Rule(
        "gradient jump",
        "the median gradient norm of 10 steps is more than {threshold:g} times that of the first 10",
        10.0,
        _gradient_jump,
        "lower optim.lr, or look at what was sampled or read at that step",
        GRADIENT,
    ),
    Rule(
        "nothing moves",
        "the gradient norm or the learning rate is {threshold:g} over the last 10 steps",
        0.0,
        _nothing_moves,
        "look at optim.lr and its schedule; in RL, whether any group has different rewards",
        is_failure=True,
    ),
    Rule(
        "low utilisation",
        "the median tokens per second of 10 steps are below {threshold:.0%} of the best such median (20 steps or more)",
        0.25,
        _slow,
        "look for other work on the machine, for swapping, and for completions that grow",
        SPEED,
    ),
    Rule(
        "idle experts",
        "the busiest expert's excess over the mean load is above {threshold:g} times the mean (50 steps or more)",
        2.0,
        _idle_experts,
        "raise stage.bias_update_speed or model.balance_loss_alpha",
        "moe/max_violation",
    ),
)
