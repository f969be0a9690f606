"""95 % confidence intervals of measured accuracies and of means over training seeds, the unbiased pass@k, and the majority vote.

An accuracy on 1,000 problems with k samples each does not rest on 1000 k independent observations, because the samples of one
problem are correlated. So `bootstrap_mean_interval` resamples whole problems (clusters). `wilson_interval` is for one observation
per problem, and stays valid near 0 and 1, where the bootstrap interval has no width. `mean_interval_t` is for training seeds: few
runs, each with one number. The first two say how far other problems would move the number of one model; only the last says how far
another training would.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

import numpy as np

from r1_lightning.types.errors import require, require_int

Z_95 = 1.959963984540054  # the 0.975 quantile of the standard normal distribution
TAIL_PERCENT = 2.5  # what a 95 % interval leaves out on each side
_ROUNDING = 1e-12  # cluster means that differ by less count as equal
_CHUNK_DRAWS = 4_000_000  # draws held in memory at a time: 32 MB of 8-byte indices


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with the bounds of its 95 % interval, in the unit of what was measured."""

    estimate: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.estimate:.3f} [{self.low:.3f}, {self.high:.3f}]"


def wilson_interval(successes: int, n: int) -> Interval:
    """Wilson's score interval for a share p = successes / n of independent trials (E. B. Wilson, 1927).

    (p + z^2/2n ± z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n), z = 1.96. Raises `InvalidInput` unless 0 <= successes <=
    n, n >= 1.
    """
    require_int("n", n, minimum=1)
    require_int("successes", successes, minimum=0, maximum=n)
    return _wilson(successes / n, n)


def _wilson(p: float, n: int) -> Interval:
    z2_n = Z_95**2 / n
    centre = (p + z2_n / 2) / (1 + z2_n)
    half = Z_95 * math.sqrt(p * (1 - p) / n + z2_n / (4 * n)) / (1 + z2_n)
    # At the ends the formula is exactly 0 or 1; rounding must not push it beyond.
    low = 0.0 if p == 0 else centre - half
    high = 1.0 if p == 1 else centre + half
    return Interval(p, low, high)


def share_interval(
    values: Sequence[float | int | bool] | np.ndarray, clusters: Sequence[Hashable] | np.ndarray | None = None
) -> Interval:
    """Return the mean of `values` in 0..1 with its interval; `clusters` says which values belong to the same problem.

    Uses `bootstrap_mean_interval`. If that has no spread to resample (all clusters have the same mean, or there is only one), uses
    Wilson's score interval of that mean p over the n clusters (`wilson_interval`'s formula; for p = 0: [0, z^2/(n + z^2)]): that a
    model solved none of 8 problems does not prove that it solves none at all. Conservative if a cluster has several values.
    Raises `InvalidInput` as the bootstrap does, and for values outside of 0..1.
    """
    found = bootstrap_mean_interval(values, clusters)
    data = np.asarray(values, dtype=np.float64)
    require(bool(((data >= 0) & (data <= 1)).all()), "values", "outside of 0..1", "a share is a mean of values in 0..1")
    sums, sizes = _cluster_sums(data, clusters)
    if np.ptp(sums / sizes) > _ROUNDING:
        return found
    return _wilson(found.estimate, sums.size)


def bootstrap_mean_interval(
    values: Sequence[float | int | bool] | np.ndarray,
    clusters: Sequence[Hashable] | np.ndarray | None = None,
    seed: int = 0,
    n_resamples: int = 2_000,
) -> Interval:
    """Expanded percentile bootstrap of the mean of `values`, resampling whole clusters (Hesterberg 2015, section 5.4).

    `clusters[i]` says which problem `values[i]` belongs to; None makes each value its own cluster. A resample draws as
    many clusters as there are, with replacement; its mean is the sum of all drawn values divided by their number. Means of
    resamples of n clusters spread by sqrt((n - 1) / n) too little, and a normal tail is too short for few clusters, so the
    bounds are further quantiles than 2.5 and 97.5 % (`tail_percent`). With a single cluster the spread is unknown and both
    bounds are NaN. The same arguments always give the same result. Raises `InvalidInput` for no values, values that are not
    finite, and lengths that differ.
    """
    data = np.asarray(values, dtype=np.float64)
    require(data.ndim == 1 and data.size > 0, "values", data.shape, "it must be a non-empty list of numbers")
    require(bool(np.isfinite(data).all()), "values", "not finite", "every value must be a finite number")
    require_int("n_resamples", n_resamples, minimum=100)
    sums, sizes = _cluster_sums(data, clusters)
    n_clusters = sums.size
    estimate = float(data.mean())
    if n_clusters == 1:
        return Interval(estimate, math.nan, math.nan)
    rng = np.random.default_rng(seed)
    means = np.empty(n_resamples)
    chunk = max(1, _CHUNK_DRAWS // n_clusters)
    for first in range(0, n_resamples, chunk):
        drawn = rng.integers(n_clusters, size=(min(chunk, n_resamples - first), n_clusters))
        means[first : first + len(drawn)] = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    tail = tail_percent(n_clusters)
    low, high = np.percentile(means, [tail, 100 - tail])
    return Interval(estimate, float(low), float(high))


def tail_percent(n: int) -> float:
    """Return what each tail of the resampled means of n >= 2 clusters leaves out: 100 Phi(-t sqrt(n / (n - 1))).

    t is the 0.975 quantile of Student's distribution with n - 1 degrees of freedom (T. C. Hesterberg, What Teachers Should Know
    About the Bootstrap, The American Statistician 69, 2015, section 5.4). 2.5 for n without bound; 1.88 for n = 30.
    """
    return 100 * NormalDist().cdf(-t_quantile(n - 1) * math.sqrt(n / (n - 1)))


def mean_interval_t(values: Sequence[float | int] | np.ndarray) -> Interval:
    """Student's interval of the mean of n independent, normal `values`, such as one number for each training seed (1908).

    mean ± t s / sqrt(n), where s is the sample standard deviation and t the 0.975 quantile for n - 1 degrees of freedom. Two seeds
    give a valid interval, but a wide one: t is 12.7 for n = 2, 4.3 for n = 3. Raises `InvalidInput` for fewer than 2 values and for
    values that are not finite.
    """
    data = np.asarray(values, dtype=np.float64)
    require(
        data.ndim == 1 and data.size >= 2,
        "values",
        data.shape,
        "a spread over seeds needs a list of at least 2 numbers",
    )
    require(bool(np.isfinite(data).all()), "values", "not finite", "every value must be a finite number")
    centre = float(data.mean())
    half = t_quantile(data.size - 1) * float(data.std(ddof=1)) / math.sqrt(data.size)
    return Interval(centre, centre - half, centre + half)


@cache  # asked again for every row of a table
def t_quantile(degrees: int, two_sided: float = 0.95) -> float:
    """Return the t for which |T| <= t with probability `two_sided`, T of Student's distribution with `degrees` of freedom.

    With theta = atan(t / sqrt(degrees)), that probability is a finite sum (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4) which
    grows with theta, so theta is found by halving an interval.
    """
    require_int("degrees", degrees, minimum=1)
    require(0 < two_sided < 1, "two_sided", two_sided, "it must be a probability above 0 and below 1")
    low, high = 0.0, math.pi / 2
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if _t_within(middle, degrees) < two_sided else (low, middle)
    return math.sqrt(degrees) * math.tan(high)


def _t_within(theta: float, degrees: int) -> float:
    """Return P(|T| <= sqrt(degrees) tan(theta)), by the sums for an odd and for an even number of degrees."""
    cos2 = math.cos(theta) ** 2
    term, total = (math.cos(theta), 0.0) if degrees % 2 else (1.0, 0.0)
    for n in range(2 + degrees % 2, degrees + 1, 2):  # the factors of the terms are 2/3, 4/5, ... or 1/2, 3/4, ...
        total += term
        term *= cos2 * (n - 1) / n
    total *= math.sin(theta)
    return (theta + total) * 2 / math.pi if degrees % 2 else total


def pass_at_k(n_samples: int, n_correct: int, k: int) -> float:
    """Estimate the chance that at least one of k samples is right, from n samples with c right: 1 - C(n-c, k) / C(n, k).

    Unbiased, unlike 1 - (1 - c/n)^k (Chen et al. 2021, arXiv:2107.03374, equation 1). k = 1 gives c/n. Raises
    `InvalidInput` unless 1 <= k <= n and 0 <= c <= n.
    """
    require_int("n_samples", n_samples, minimum=1)
    require_int("n_correct", n_correct, minimum=0, maximum=n_samples)
    require_int("k", k, minimum=1, maximum=n_samples)
    return 1.0 - math.comb(n_samples - n_correct, k) / math.comb(n_samples, k)


def majority_vote(answers: Sequence[Hashable | None]) -> Hashable | None:
    """Return the most frequent answer; of equally frequent ones the first given. None does not vote; without votes, None."""
    votes = Counter(answer for answer in answers if answer is not None)  # keeps the order of first appearance
    return max(votes, key=votes.__getitem__, default=None)  # max returns the first of equals


def _cluster_sums(data: np.ndarray, clusters: Sequence[Hashable] | np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the sum and the count of each cluster's values, clusters in the order of first appearance."""
    if clusters is None:
        return data, np.ones_like(data)
    require(len(clusters) == data.size, "clusters", len(clusters), f"there must be {data.size}, one per value")
    number_of: dict[Hashable, int] = {}
    numbers = np.array([number_of.setdefault(cluster, len(number_of)) for cluster in clusters])
    return np.bincount(numbers, weights=data), np.bincount(numbers).astype(np.float64)
