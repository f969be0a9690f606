"""Time and tokens by phase, worked out by hand."""

from __future__ import annotations

import pytest

from r1_lightning.artefacts.work import Work
from r1_lightning.review.page.phases import Phase, phases, seconds
from r1_lightning.review.series import Series

FOUR = (0, 1, 2, 3)
SETTINGS = {"rollout.minibatches_per_rollout": "2", "rollout.group_size": "16", "rollout.prompts_per_rollout": "32"}


def series(**more: tuple[float, ...]) -> dict[str, Series]:
    own = {"perf/step_s": (5.0, 2.0, 6.0, 4.0), "perf/step_tokens": (100.0, 110.0, 120.0, 130.0), **more}
    return {name: Series(FOUR, values) for name, values in own.items()}


def test_a_rollout_of_two_minibatches() -> None:
    """Steps 1 and 3 only train: 3 s each in the mean, so 12 s of 17 s; the other 5 s are sampling. Rollouts at steps 0 and 2."""
    lengths = {
        "rollout/completion_tokens_mean": (10.0, 10.0, 20.0, 20.0),
        "rollout/drawn_groups": (32.0, 32.0, 40.0, 40.0),
    }
    assert phases(series(**lengths), SETTINGS, Work(20.0)) == [
        Phase("sampling and judging", 5.0, 10 * 16 * 32 + 20 * 16 * 40),
        Phase("training", 12.0, 460.0),
        Phase("starting, evaluations, checkpoints", 3.0, None),
    ]


def test_one_minibatch_cannot_be_told_apart() -> None:
    told = phases(
        series(**{"rollout/completion_tokens_mean": (1.0,) * 4}),
        {**SETTINGS, "rollout.minibatches_per_rollout": "1"},
        None,
    )
    assert told == [
        Phase("sampling and judging", None, 4 * 16 * 32),
        Phase("training", None, 460.0),
        Phase("both together", 17.0, None),
    ]


def test_a_stage_without_rollouts_and_a_run_without_metrics() -> None:
    assert phases(series(), {}, None) == [Phase("training", 17.0, 460.0)]
    assert phases({}, SETTINGS, Work(5.0)) == []


@pytest.mark.parametrize("text", ["", "x", "-2", "9" * 30, "0"])
def test_settings_of_another_kind_say_nothing(text: str) -> None:
    told = phases(
        series(**{"rollout/completion_tokens_mean": (1.0,) * 4}), {"rollout.minibatches_per_rollout": text}, None
    )
    assert told == [Phase("training", 17.0, 460.0)]


@pytest.mark.parametrize(
    ("value", "text"), [(None, "not recorded apart"), (12.34, "12.3 s"), (250.0, "4 min 10 s"), (7500.0, "2 h 5 min")]
)
def test_durations(value: float | None, text: str) -> None:
    assert seconds(value) == text


def test_times_without_bounds_are_not_told() -> None:
    """Their sum is infinite, and infinity less infinity is no number."""
    lengths = {"rollout/completion_tokens_mean": (1.0,) * 4, "perf/step_s": (1.7e308,) * 4}
    told = phases(series(**lengths), SETTINGS, Work(20.0))
    assert [seconds(phase.seconds) for phase in told][1] == "not recorded apart"
