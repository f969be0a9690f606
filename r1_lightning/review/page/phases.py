"""Time and tokens of a run by phase, from what its metrics say of each optimizer step.

A step that begins with a rollout samples, judges and trains; the next steps of the same rollout only train. So the difference of
their mean times is what sampling and judging take, where a rollout has more than one minibatch. What a run's processes worked
beyond their steps went into starting, evaluations and checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from r1_lightning.artefacts.work import Work
from r1_lightning.review.series import Series

STEP_S, STEP_TOKENS = "perf/step_s", "perf/step_tokens"
COMPLETION_TOKENS, GROUPS = "rollout/completion_tokens_mean", "rollout/drawn_groups"


@dataclass(frozen=True)
class Phase:
    """`seconds` and `tokens` are None where the run's files do not tell them."""

    name: str
    seconds: float | None
    tokens: float | None


def phases(series: Mapping[str, Series], settings: Mapping[str, str], work: Work | None) -> list[Phase]:
    """Return the phases of a run, whose `series` are by name over the steps and `settings` by dotted name."""
    times, trained = _by_step(series, STEP_S), _by_step(series, STEP_TOKENS)
    minibatches = _whole(settings.get("rollout.minibatches_per_rollout"))
    found: list[Phase] = []
    if COMPLETION_TOKENS in series and minibatches:
        first = {step: seconds for step, seconds in times.items() if step % minibatches == 0}
        later = {step: seconds for step, seconds in times.items() if step % minibatches}
        training = len(times) * _mean(list(later.values())) if later else None
        sampling = None if training is None else max(0.0, sum(times.values()) - training)
        sampled = _sampled(series, settings, set(first))
        found = [
            Phase("sampling and judging", sampling, sampled),
            Phase("training", training, _sum(trained)),
        ]
        if training is None:
            found.append(Phase("both together", _sum(times), None))
    elif times:
        found = [Phase("training", _sum(times), _sum(trained))]
    if work is not None and times:
        found.append(Phase("starting, evaluations, checkpoints", max(0.0, work.seconds - sum(times.values())), None))
    return found


def seconds(value: float | None) -> str:
    """Return a duration as people write it: 12.3 s, 4 min 10 s, 2 h 5 min."""
    if value is None or not math.isfinite(value):
        return "not recorded apart"
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _by_step(series: Mapping[str, Series], name: str) -> dict[int, float]:
    line = series.get(name, Series((), ()))
    pairs = zip(line.steps, line.values, strict=True)
    return {int(step): value for step, value in pairs if math.isfinite(value)}


def _sampled(series: Mapping[str, Series], settings: Mapping[str, str], first: set[int]) -> float | None:
    """Return the tokens of all completions: their mean length times their number, summed over rollouts."""
    lengths, groups = _by_step(series, COMPLETION_TOKENS), _by_step(series, GROUPS)
    size, usual = _whole(settings.get("rollout.group_size")), _whole(settings.get("rollout.prompts_per_rollout"))
    if not size or not (groups or usual):
        return None
    return sum(length * size * groups.get(step, usual) for step, length in lengths.items() if step in first)


def _whole(text: str | None) -> int:
    return int(text) if text and text.isdecimal() and len(text) <= 9 else 0


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _sum(values: Mapping[int, float]) -> float | None:
    return sum(values.values()) if values else None
