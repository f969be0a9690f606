"""95 % confidence intervals of measured accuracies, the unbiased pass@k, and the majority vote.

An accuracy on 1,000 problems with k samples each does not rest on 1000 k independent observations, because the samples of one
problem are correlated. So `bootstrap_mean_interval` resamples whole problems (clusters). `wilson_interval` is for one observation
per problem, and stays valid near 0 and 1, where the bootstrap interval has no width.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

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
    """Percentile bootstrap of the mean of `values`, resampling whole clusters (Efron and Tibshirani 1993, chapters 8,
    13).

    `clusters[i]` says which problem `values[i]` belongs to; None makes each value its own cluster. A resample draws as
    many clusters as there are, with replacement; its mean is the sum of all drawn values divided by their number. With a
    single cluster the spread is unknown and both bounds are NaN. The same arguments always give the same result. Raises
    `InvalidInput` for no values, values that are not finite, and lengths that differ.
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
    low, high = np.percentile(means, [TAIL_PERCENT, 100 - TAIL_PERCENT])
    return Interval(estimate, float(low), float(high))


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
