"""Standard errors, paired differences and the parts of a variance, by hand and against simulated benchmarks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1_lightning.functional.intervals import Interval, bootstrap_mean_interval
from r1_lightning.functional.uncertainty import (
    PairedDifference,
    VarianceParts,
    paired_difference,
    question_means,
    smallest_visible_difference,
    standard_error_of_questions,
    variance_parts,
)
from r1_lightning.types.errors import InvalidInput

# Four questions of four samples: means 1/4, 1/2, 3/4, 0.
SCORES = [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0]]


def test_a_standard_error_by_hand() -> None:
    # Means 0.25, 0.5, 0.75, 0: their mean is 0.375, their squared deviations 0.015625 (twice), 0.140625 (twice), together
    # 0.3125, over 3 = 0.104167; divided by 4 questions 0.0260417, whose root is 0.161374.
    assert standard_error_of_questions(SCORES) == pytest.approx(math.sqrt(0.3125 / 3 / 4), abs=1e-15)
    assert math.isnan(standard_error_of_questions([[1, 0]]))


def test_a_difference_by_hand() -> None:
    # Differences 0.25, 0, 0.25, 0: mean 0.125, squared deviations 4 * 0.015625 = 0.0625, standard error sqrt(0.0625 / 3 / 4).
    found = paired_difference(SCORES, [[0, 0], [1, 0], [1, 0], [0, 0]])
    assert found.interval.estimate == 0.125 and found.questions == 4
    assert found.standard_error == pytest.approx(math.sqrt(0.0625 / 12), abs=1e-15)
    assert found.interval == bootstrap_mean_interval([0.25, 0, 0.25, 0])
    assert found.smallest_visible == pytest.approx(2.801585 * math.sqrt(0.0625 / 12), abs=1e-6)


def test_a_difference_is_seen_if_its_interval_leaves_out_0() -> None:
    def seen(low: float, high: float) -> bool:
        return PairedDifference(Interval((low + high) / 2, low, high), 0.1, 10).is_seen

    assert seen(0.01, 0.2) and seen(-0.2, -0.01)
    assert not seen(-0.01, 0.2) and not seen(0.0, 0.2)


@settings(max_examples=20)
@given(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=2, max_size=8))
def test_a_model_does_not_differ_from_itself_and_differences_mirror(table: list[list[bool]]) -> None:
    same = paired_difference(table, table)
    assert (same.interval.estimate, same.interval.low, same.interval.high, same.standard_error) == (0, 0, 0, 0)
    other = [[not row[0]] for row in table]
    there, back = paired_difference(table, other), paired_difference(other, table)
    assert there.interval.estimate == -back.interval.estimate
    assert there.standard_error == pytest.approx(back.standard_error, abs=1e-15)


def test_a_variance_falls_into_its_parts_by_hand() -> None:
    # Within the questions (k - 1 = 3): 3/16 * 4/3 = 0.25, 1/4 * 4/3 = 1/3, 0.25, 0: mean 0.208333, over k = 4: 0.0520833.
    # Between: 0.104167, so 0.0520833 is left for the questions. Over 4 questions both are 0.0130208.
    parts = variance_parts(SCORES)
    assert (parts.data, parts.sampling) == pytest.approx((0.0130208333, 0.0130208333), abs=1e-9)
    assert parts.standard_error == pytest.approx(standard_error_of_questions(SCORES), abs=1e-15)
    # The data part alone is half of the variance: no k leaves half of it.
    assert VarianceParts(0.25, 0.25, 4, 4).samples_to_halve is None
    # 1 + 3 = 4: to get 2, sampling must fall from 3 to 1, so k from 4 to 12.
    assert VarianceParts(1.0, 3.0, 4, 4).samples_to_halve == 12
    assert VarianceParts(0.0, 3.0, 4, 4).samples_to_halve == 8
    assert VarianceParts(1.0, 0.0, 4, 4).samples_to_halve is None


def test_questions_that_a_model_solves_equally_often_leave_no_negative_variance() -> None:
    parts = variance_parts([[1, 0], [0, 1], [1, 0]])
    assert parts.data == 0 and parts.sampling == pytest.approx(0.5 / 2 / 3, abs=1e-15)


def test_the_parts_of_a_variance_are_right_on_average() -> None:
    """Chances from a uniform distribution: Var p = 1/12, E[p (1 - p)] = 1/6. 50 questions of 4 samples, 2,000 benchmarks."""
    rng = np.random.default_rng(0)
    scores = rng.random((2_000, 50, 4)) < rng.random((2_000, 50, 1))
    parts = [variance_parts(table) for table in scores]
    assert np.mean([part.data for part in parts]) == pytest.approx(1 / 12 / 50, rel=0.02)
    assert np.mean([part.sampling for part in parts]) == pytest.approx(1 / 6 / 4 / 50, rel=0.02)
    # What the means of the 2,000 benchmarks spread by.
    assert scores.mean(axis=(1, 2)).var() == pytest.approx((1 / 12 + 1 / 24) / 50, rel=0.1)


def test_the_smallest_visible_difference_is_found_in_80_of_100_comparisons() -> None:
    """Two models whose differences by question have mean d and variance 1: d = 2.80 / sqrt(P). P = 100, 2,000 comparisons."""
    questions = 100
    effect = smallest_visible_difference(1 / math.sqrt(questions))
    differences = np.random.default_rng(0).normal(effect, 1.0, size=(2_000, questions))
    errors = np.array([standard_error_of_questions(row[:, None]) for row in differences])
    found = np.abs(differences.mean(axis=1)) > 1.959963984540054 * errors
    assert 0.78 < found.mean() < 0.82


def test_pairing_sees_what_two_intervals_do_not() -> None:
    """The second model is better by 5 points on every question, and questions differ by far more than that."""
    chances = np.linspace(0, 0.9, 60)[:, None]
    first, second = np.repeat(chances + 0.05, 4, axis=1), np.repeat(chances, 4, axis=1)
    assert paired_difference(first, second).is_seen
    assert paired_difference(first, second).standard_error == pytest.approx(0, abs=1e-15)
    assert standard_error_of_questions(first) > 0.03


@pytest.mark.slow
def test_the_interval_of_a_difference_covers_the_truth_in_95_of_100_experiments() -> None:
    """Both models solve a question with a chance of its own, the first with 0.1 more; 60 questions, k = 8 and 4."""
    rng = np.random.default_rng(3)
    chances = rng.uniform(0, 0.9, size=(2_000, 60, 1))
    first, second = rng.random((2_000, 60, 8)) < chances + 0.1, rng.random((2_000, 60, 4)) < chances
    found = [paired_difference(a, b).interval for a, b in zip(first, second, strict=True)]
    assert 0.93 < np.mean([interval.low <= 0.1 <= interval.high for interval in found]) < 0.97


@pytest.mark.parametrize("table", [[], [[]], [[1.0], [math.nan]], [[1.0], [1.0, 0.0]]])
def test_questions_need_scores(table: list[list[float]]) -> None:
    with pytest.raises(InvalidInput, match="table"):
        question_means(table)


@pytest.mark.parametrize("table", [[[1, 0]], [[1], [0]]])
def test_a_split_needs_two_samples_of_two_questions(table: list[list[int]]) -> None:
    with pytest.raises(InvalidInput, match="at least 2 questions with 2 samples each"):
        variance_parts(table)


def test_a_comparison_needs_the_same_questions() -> None:
    with pytest.raises(InvalidInput, match="second=1 is not allowed: it must hold the same 2 questions"):
        paired_difference([[1], [0]], [[1]])
