"""Intervals, pass@k and the majority vote against numbers worked by hand, enumeration and repeated experiments."""

from __future__ import annotations

import math
from collections.abc import Hashable
from fractions import Fraction
from itertools import combinations, product

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1_lightning.functional.intervals import (
    Interval,
    bootstrap_mean_interval,
    majority_vote,
    mean_interval_t,
    pass_at_k,
    share_interval,
    t_quantile,
    tail_percent,
    wilson_interval,
)
from r1_lightning.types.errors import InvalidInput


def test_wilson_by_hand() -> None:
    # p = 1/2, n = 4, z^2 = 3.841459: the centre is (0.5 + z^2/8) / (1 + z^2/4) = 0.980182 / 1.960365 = 0.5, and half
    # the width is z sqrt(1/16 + z^2/64) / 1.960365 = 1.959964 * 0.350033 / 1.960365 = 0.349961.
    interval = wilson_interval(2, 4)
    assert interval.estimate == 0.5
    assert interval.low == pytest.approx(0.150039, abs=1e-6)
    assert interval.high == pytest.approx(0.849961, abs=1e-6)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        # Newcombe 1998, Statistics in Medicine 17, 857-872, table I, method 3 (score, without continuity correction).
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (20, 20, 0.8389, 1.0000),  # the mirror image of 0 of 20
    ],
)
def test_wilson_against_a_published_table(successes: int, n: int, low: float, high: float) -> None:
    interval = wilson_interval(successes, n)
    assert (round(interval.low, 4), round(interval.high, 4)) == (low, high)


@given(st.integers(1, 5_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_contains_its_estimate_and_mirrors(pair: tuple[int, int]) -> None:
    successes, n = pair
    interval, mirror = wilson_interval(successes, n), wilson_interval(n - successes, n)
    assert 0.0 <= interval.low <= interval.estimate <= interval.high <= 1.0
    assert interval.high - interval.low > 0
    assert mirror.low == pytest.approx(1 - interval.high, abs=1e-12)
    assert mirror.high == pytest.approx(1 - interval.low, abs=1e-12)


def test_wilson_covers_the_truth_in_about_95_of_100_experiments() -> None:
    # Exact coverage at p = 0.3, n = 50: add up the binomial weights of the counts whose interval holds p.
    p, n = 0.3, 50
    covered = 0.0
    for successes in range(n + 1):
        interval = wilson_interval(successes, n)
        if interval.low <= p <= interval.high:
            covered += math.comb(n, successes) * p**successes * (1 - p) ** (n - successes)
    assert 0.93 < covered < 0.97


def test_bootstrap_of_independent_values_is_close_to_the_normal_interval() -> None:
    values = np.random.default_rng(1).normal(5.0, 2.0, size=400)
    interval = bootstrap_mean_interval(values)
    half = 1.959963984540054 * values.std() / math.sqrt(400)
    assert interval.estimate == pytest.approx(values.mean(), abs=1e-12)
    # A quantile of 2,000 resamples scatters by sqrt(0.025 * 0.975 / 2000) / 0.0584 (the normal density at 1.96) = 0.06 deviations,
    # 0.03 of the half width 1.96.
    assert interval.low == pytest.approx(values.mean() - half, abs=3 * 0.03 * half)
    assert interval.high == pytest.approx(values.mean() + half, abs=3 * 0.03 * half)


def test_samples_of_one_problem_are_not_counted_as_independent() -> None:
    # 100 problems, each with 16 equal samples: clustering must widen the interval by sqrt(16) = 4.
    per_problem = np.random.default_rng(2).integers(0, 2, size=100)
    values, problems = np.repeat(per_problem, 16), np.repeat(np.arange(100), 16)
    clustered = bootstrap_mean_interval(values, problems)
    naive = bootstrap_mean_interval(values)
    # Each of the two widths scatters by about 0.03 / sqrt(2) of itself (see above), and so their ratio by 0.03.
    assert (clustered.high - clustered.low) / (naive.high - naive.low) == pytest.approx(4.0, rel=3 * 0.03)
    # and is the interval of the 100 problem means
    means = bootstrap_mean_interval(per_problem)
    assert (clustered.low, clustered.high) == pytest.approx((means.low, means.high), abs=1e-12)


def test_bootstrap_two_clusters_by_hand() -> None:
    # Clusters {0, 0} and {1}: resamples are AA (mean 0), AB or BA (1/3), BB (1), so the bounds are 0 and 1.
    assert bootstrap_mean_interval([0, 0, 1], ["a", "a", "b"]) == Interval(1 / 3, 0.0, 1.0)


def test_few_clusters_have_shorter_tails() -> None:
    """For 30 clusters t is 2.0452 (29 degrees), times sqrt(30 / 29) 2.0802, beyond which lie 1.8754 % of a normal distribution."""
    assert tail_percent(30) == pytest.approx(1.8754, abs=5e-5)
    # Of two clusters the bounds are those of all resamples: 12.706 sqrt(2) is 18 deviations away.
    assert tail_percent(2) < 1e-50 and tail_percent(10_000) == pytest.approx(2.5, abs=2e-3)


def test_bootstrap_covers_the_truth_in_about_95_of_100_experiments() -> None:
    rng = np.random.default_rng(3)
    covered = 0
    for experiment in range(300):
        difficulty = rng.beta(2, 2, size=80)  # the mean is 1/2
        values = (rng.random((80, 4)) < difficulty[:, None]).ravel()
        interval = bootstrap_mean_interval(values, np.repeat(np.arange(80), 4), seed=experiment, n_resamples=400)
        covered += interval.low <= 0.5 <= interval.high
    # Binomial(300, 0.95) has a standard deviation of 3.8: 271 to 299 is 285 +- 3.8 deviations.
    assert 271 <= covered <= 299


def test_bootstrap_is_a_function_of_its_arguments() -> None:
    values = [1, 0, 1, 1, 0, 0, 1, 0]
    assert bootstrap_mean_interval(values, seed=4) == bootstrap_mean_interval(values, seed=4)
    renamed = bootstrap_mean_interval(values, list("aabbccdd"))
    assert renamed == bootstrap_mean_interval(values, [9, 9, 2, 2, 7, 7, 1, 1])


def test_one_cluster_has_no_spread_and_says_so() -> None:
    interval = bootstrap_mean_interval([1.0, 0.0], ["a", "a"])
    assert interval.estimate == 0.5
    assert math.isnan(interval.low) and math.isnan(interval.high)


@pytest.mark.parametrize(
    ("values", "clusters", "message"),
    [([], None, "values"), ([1.0, math.nan], None, "not finite"), ([1.0, 2.0], ["a"], "clusters=1")],
)
def test_bootstrap_refuses_bad_values(values: list[float], clusters: list[Hashable] | None, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        bootstrap_mean_interval(values, clusters)


def test_pass_at_k_by_hand() -> None:
    # n = 5, c = 2, k = 2: pairs without a right one: C(3,2) = 3 of C(5,2) = 10.
    assert pass_at_k(5, 2, 2) == pytest.approx(0.7, abs=1e-15)
    assert pass_at_k(4, 1, 1) == 0.25
    assert pass_at_k(4, 0, 4) == 0.0
    assert pass_at_k(4, 1, 4) == 1.0
    assert pass_at_k(10, 8, 3) == 1.0  # only two are wrong, so any three hold a right one


@given(st.integers(1, 8).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_is_the_share_of_subsets_with_a_right_one(case: tuple[int, int, int]) -> None:
    n, c, k = case
    subsets = list(combinations([True] * c + [False] * (n - c), k))
    assert pass_at_k(n, c, k) == pytest.approx(float(Fraction(sum(map(any, subsets)), len(subsets))), abs=1e-12)


def test_pass_at_k_does_not_overflow() -> None:
    # 1 - C(5000, 1000) / C(10000, 1000) is 1 to double precision.
    assert pass_at_k(10_000, 5_000, 1_000) == 1.0
    # Without a single right sample but one: k / n.
    assert pass_at_k(10_000, 1, 1_000) == pytest.approx(0.1, abs=1e-12)


@pytest.mark.parametrize(("n", "c", "k"), [(0, 0, 1), (4, 5, 1), (4, -1, 1), (4, 2, 5), (4, 2, 0), (4, 2.0, 1)])
def test_pass_at_k_refuses_samples_that_do_not_exist(n: int, c: int, k: int) -> None:
    with pytest.raises((InvalidInput, TypeError)):
        pass_at_k(n, c, k)


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (5, 4), (-1, 4)])
def test_wilson_refuses_impossible_counts(successes: int, n: int) -> None:
    with pytest.raises(InvalidInput):
        wilson_interval(successes, n)


@pytest.mark.parametrize(
    ("answers", "winner"),
    [
        (["5", "6", "5"], "5"),
        (["6", "5", "5", "6"], "6"),  # equal: the one given first
        ([None, None, None, "5"], "5"),  # no answer is no vote
        ([None, None], None),
        ([], None),
    ],
)
def test_majority_vote(answers: list[str | None], winner: str | None) -> None:
    assert majority_vote(answers) == winner


@given(st.lists(st.sampled_from([None, "a", "b", "c"]), max_size=12))
def test_the_winner_has_the_most_votes(answers: list[str | None]) -> None:
    winner = majority_vote(answers)
    votes = [answer for answer in answers if answer is not None]
    assert (winner is None) == (not votes)
    assert all(votes.count(winner) >= votes.count(other) for other in votes)


def test_an_interval_prints_in_one_short_piece() -> None:
    assert str(Interval(0.5, 0.25, 0.75)) == "0.500 [0.250, 0.750]"


@pytest.mark.parametrize(
    ("values", "clusters", "wilson"),
    [
        ([0] * 8, None, (0, 8)),
        ([1] * 8, None, (8, 8)),
        ([0] * 64, [i // 8 for i in range(64)], (0, 8)),  # 8 problems of 8 samples are 8 trials
        ([1, 0] * 6, [i // 2 for i in range(12)], (3, 6)),  # each problem half right
        ([0], None, (0, 1)),  # a single problem: the bootstrap has no bounds
        ([1, 1, 1, 0], [0, 0, 0, 0], None),
        ([0.1 + 0.2, 0.3], None, None),  # equal but for rounding
    ],
)
def test_a_share_without_spread_has_wilsons_interval(
    values: list[float], clusters: list[int] | None, wilson: tuple[int, int] | None
) -> None:
    found = share_interval(values, clusters)
    assert found.estimate == pytest.approx(float(np.mean(values))) and found.low <= found.estimate <= found.high
    assert found.high - found.low > 0.2
    if wilson is not None:
        expected = wilson_interval(*wilson)
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_of_nothing_has_a_closed_form() -> None:
    for n in (1, 4, 8, 20, 500):
        assert share_interval([0] * n).high == pytest.approx(
            1.959963984540054**2 / (n + 1.959963984540054**2), abs=1e-12
        )
        assert share_interval([1] * n).low == pytest.approx(n / (n + 1.959963984540054**2), abs=1e-12)


@given(st.lists(st.sampled_from([0.0, 0.25, 1.0]), min_size=2, max_size=20).filter(lambda values: len(set(values)) > 1))
def test_a_share_with_spread_keeps_its_bootstrap(values: list[float]) -> None:
    assert share_interval(values) == bootstrap_mean_interval(values)


def test_a_share_is_between_0_and_1() -> None:
    with pytest.raises(InvalidInput, match="a share is a mean of values in"):
        share_interval([0.5, 1.5])


def test_an_interval_over_seeds_by_hand() -> None:
    # 1, 2, 3: mean 2, s = 1; t of 2 degrees is 0.95 sqrt(2 / (1 - 0.95^2)) = 4.302653, so 2 ± 4.302653 / sqrt(3).
    interval = mean_interval_t([1, 2, 3])
    half = 0.95 * math.sqrt(2 / (1 - 0.95**2)) / math.sqrt(3)
    assert (interval.estimate, interval.low, interval.high) == pytest.approx((2.0, 2 - half, 2 + half), abs=1e-12)
    # Two seeds: t = tan(0.95 pi / 2) = 12.7062, s = sqrt(2) / 2 for 0 and 1, so 0.5 ± 12.7062 / 2.
    assert mean_interval_t([0, 1]).high == pytest.approx(0.5 + math.tan(0.95 * math.pi / 2) / 2, abs=1e-12)
    same = mean_interval_t([0.25] * 5)
    assert (same.low, same.high) == (0.25, 0.25)


@pytest.mark.parametrize(
    ("degrees", "published"),
    # The 0.975 quantiles of Student's table (Abramowitz and Stegun 1964, table 26.10).
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (5, 2.571), (9, 2.262), (10, 2.228), (30, 2.042), (120, 1.980)],
)
def test_quantiles_of_student_are_those_of_his_table(degrees: int, published: float) -> None:
    assert round(t_quantile(degrees), 3) == published


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 7, 8, 99, 1000])
@pytest.mark.parametrize("share", [0.5, 0.95, 0.999])
def test_quantiles_of_student_invert_the_incomplete_beta_function(degrees: int, share: float) -> None:
    t = t_quantile(degrees, share)
    outside = mpmath.betainc(degrees / 2, 0.5, 0, degrees / (degrees + t * t), regularized=True)
    assert float(outside) == pytest.approx(1 - share, abs=1e-12)


def test_an_interval_over_seeds_covers_the_truth_in_95_of_100_experiments() -> None:
    """2,000 experiments of three seeds each; by chance alone the share is off by 0.5 points (one sigma)."""
    found = [mean_interval_t(values) for values in np.random.default_rng(0).normal(0.4, 0.05, size=(2_000, 3))]
    assert 0.93 < np.mean([interval.low <= 0.4 <= interval.high for interval in found]) < 0.97


@pytest.mark.slow
@pytest.mark.parametrize(
    ("questions", "samples", "shape"),
    [(12, 8, (1, 1)), (30, 4, (1, 1)), (50, 4, (1, 1)), (50, 16, (0.5, 0.5)), (100, 1, (3, 2))],
)
def test_an_interval_over_questions_covers_the_truth_in_95_of_100_experiments(
    questions: int, samples: int, shape: tuple[float, float]
) -> None:
    """2,000 benchmarks, whose questions a model solves with chances drawn from a beta distribution of mean a / (a + b)."""
    rng = np.random.default_rng(1)
    chances = rng.beta(*shape, size=(2_000, questions, 1))
    scores = (rng.random((2_000, questions, samples)) < chances).astype(float)
    clusters = np.repeat(np.arange(questions), samples)
    truth = shape[0] / sum(shape)
    found = [bootstrap_mean_interval(row.ravel(), clusters, n_resamples=1_000) for row in scores]
    assert 0.93 < np.mean([interval.low <= truth <= interval.high for interval in found]) < 0.97


@pytest.mark.parametrize("values", [[], [1.0], [1.0, math.nan]])
def test_an_interval_over_seeds_needs_two_finite_numbers(values: list[float]) -> None:
    with pytest.raises(InvalidInput, match="values"):
        mean_interval_t(values)


@pytest.mark.parametrize(("degrees", "share"), [(0, 0.95), (3, 1.0), (3, 0.0)])
def test_a_quantile_needs_degrees_and_a_probability(degrees: int, share: float) -> None:
    with pytest.raises(InvalidInput):
        t_quantile(degrees, share)


@pytest.mark.parametrize("p", [0.03, 0.5, 0.9])
@pytest.mark.parametrize(("n", "k"), [(4, 1), (16, 4), (64, 64)])
def test_pass_at_k_is_unbiased(p: float, n: int, k: int) -> None:
    """Its mean over all numbers of right samples, weighted by their chances, is 1 - (1 - p)^k."""
    mean = sum(math.comb(n, c) * p**c * (1 - p) ** (n - c) * pass_at_k(n, c, k) for c in range(n + 1))
    assert mean == pytest.approx(1 - (1 - p) ** k, abs=1e-12)


def test_a_vote_of_two_answers_follows_the_binomial_distribution() -> None:
    """Right with chance p: more than half of k, and half of the ties, because the first of k exchangeable samples wins those."""
    for p, k in ((0.3, 4), (0.6, 5), (0.5, 6)):
        chance = sum(
            math.prod(p if right else 1 - p for right in votes)
            for votes in product((True, False), repeat=k)
            if majority_vote(votes)
        )
        at = [math.comb(k, c) * p**c * (1 - p) ** (k - c) for c in range(k + 1)]
        ties = at[k // 2] / 2 if k % 2 == 0 else 0.0
        assert chance == pytest.approx(sum(at[k // 2 + 1 :]) + ties, abs=1e-12)
