"""Learning-rate factors as a function of the optimizer step."""

from __future__ import annotations

import math

import pytest

from r1_lightning.functional.schedules import WarmupCosine
from r1_lightning.types.errors import InvalidInput


def test_literal_numbers():
    # 4 steps up: 1/4, 2/4, 3/4, 1. Then 8 steps of cosine from 1 to 0.1: 0.1 + 0.9 * (1 + cos(pi p)) / 2.
    # Step 4: p = 0: 1. Step 6: p = 1/4: 0.1 + 0.45 * 1.7071068 = 0.8681981. Step 8: p = 1/2: 0.55. Step 12: 0.1.
    schedule = WarmupCosine(max_steps=12, warmup_steps=4, final_factor=0.1)
    assert [schedule(step) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert [schedule(step) for step in (4, 6, 8, 12)] == pytest.approx([1.0, 0.8681981, 0.55, 0.1], abs=1e-6)


def test_constant_after_warm_up_by_default():
    schedule = WarmupCosine(max_steps=10, warmup_steps=2)
    assert [schedule(step) for step in range(10)] == [0.5] + [1.0] * 9


def test_rises_then_falls_within_its_bounds():
    schedule = WarmupCosine(max_steps=50, warmup_steps=10, final_factor=0.2)
    factors = [schedule(step) for step in range(50)]
    assert factors[:10] == sorted(factors[:10])
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert min(factors) > 0.0  # a first step of zero would be wasted
    assert max(factors) == 1.0


def test_steps_past_the_end_stay_at_the_final_factor():
    schedule = WarmupCosine(max_steps=5, final_factor=0.3)
    assert [schedule(step) for step in (5, 6, 500)] == pytest.approx([0.3] * 3, abs=1e-12)


def test_against_the_formula_everywhere():
    schedule = WarmupCosine(max_steps=30, warmup_steps=0, final_factor=0.25)
    for step in range(30):
        expected = 0.25 + 0.75 * math.cos(math.pi * step / 60) ** 2  # (1 + cos x) / 2 = cos^2(x / 2)
        assert schedule(step) == pytest.approx(expected, abs=1e-12)


def test_warm_up_as_long_as_the_run():
    assert [WarmupCosine(max_steps=2, warmup_steps=2)(step) for step in range(2)] == [0.5, 1.0]


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"max_steps": 0}, "max_steps=0"),
        ({"max_steps": 10, "warmup_steps": -1}, "warmup_steps=-1"),
        ({"max_steps": 10, "final_factor": 1.5}, "final_factor=1.5"),
    ],
)
def test_bad_settings_are_named(settings, field):
    with pytest.raises(InvalidInput, match=f"schedule.{field}"):
        WarmupCosine(**settings)
