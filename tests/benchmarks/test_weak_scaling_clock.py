"""The clock: a part's seconds are its own, a call is kept by its part, and two processes' calls say who waited."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.weak_scaling_clock import Clock, split


@pytest.fixture
def after(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """`after(2.0)` lets two seconds pass."""
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def passes(seconds: float) -> None:
        now[0] += seconds

    return passes


def test_a_part_has_its_own_seconds_and_the_rest_is_what_no_part_has(after: Callable[[float], None]) -> None:
    """1 s of nothing, then 2 + 3 s of batches around 4 s of sampling and a call of 5 s: 15 s in all."""
    clock = Clock()
    clock.begin(7)
    after(1)
    with clock.part("batches"):
        after(2)
        with clock.part("rollout"):
            after(4)
        with clock.meeting(b""):
            after(5)
        after(3)
    step = clock.end()
    assert step is not None and (step.number, step.seconds) == (7, 15.0)
    assert step.parts == {"batches": 5.0, "rollout": 4.0, "rest": 1.0}
    assert step.calls == [("batches", 107.0, 112.0)] and step.bytes == {}
    assert clock.end() is None


def test_gradients_are_a_call_from_their_last_launch_to_the_end_of_backward(after: Callable[[float], None]) -> None:
    clock = Clock()
    clock.counts_bytes = True
    clock.begin(0)
    for is_last in (False, True):
        with clock.part("backward"):
            after(2)
            if is_last:
                clock.launch(10)  # the first bucket: the backward pass goes on beside it
                after(1)
                clock.launch(20)
                after(4)
            clock.landed()
    step = clock.end()
    assert step is not None and step.parts == {"backward": 5.0, "rest": 0.0}
    assert step.calls == [("backward", 105.0, 109.0)] and step.bytes == {"backward": 30}


def test_the_earlier_process_waits_until_the_later_one_comes() -> None:
    """Rank 0 comes 3 s early, then 1 s late; from the later arrival to its leaving is gloo's time."""
    first: list[tuple[str, float, float]] = [("batches", 10.0, 15.0), ("backward", 21.0, 22.0)]
    second: list[tuple[str, float, float]] = [("batches", 13.0, 14.5), ("backward", 20.0, 22.5)]
    assert split([first, second]) == [
        {"waiting: batches": 3.0, "gloo: batches": 2.0, "waiting: backward": 0.0, "gloo: backward": 1.0},
        {"waiting: batches": 0.0, "gloo: batches": 1.5, "waiting: backward": 1.0, "gloo: backward": 1.5},
    ]


@pytest.mark.parametrize("other", [[], [("backward", 1.0, 2.0)]])
def test_other_calls_are_an_error(other: list[Any]) -> None:
    with pytest.raises(ValueError):
        split([[("batches", 1.0, 2.0)], other])
