"""How sure is an evaluation: standard errors over questions, differences of two models, and where the variance comes from.

A benchmark has P questions, drawn from all that could have been asked; a model answers question i correctly with probability p_i,
and k samples of it show s_i, whose expectation is p_i. The mean of all s_i then has the variance (E. Miller 2024, arXiv:2411.00640)

    (Var p + E[p_i (1 - p_i)] / k) / P

The first term comes from the questions: only more questions shrink it. The second comes from sampling: a larger k shrinks it too.
Two models that answer the same questions are compared question by question, because what makes a question hard is then subtracted
(section 4 there): the difference has the interval and the standard error of the P differences, which is smaller than either model's
own interval suggests.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from r1_lightning.functional.intervals import Z_95, Interval, bootstrap_mean_interval
from r1_lightning.types.errors import require

Z_POWER_80 = 0.8416212335729143  # the 0.8 quantile of the standard normal distribution

Table = (
    Sequence[Sequence[float | int | bool]] | np.ndarray
)  # a row of scores for each question; rows may differ in length


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """The mean over questions of the first model's score minus the second's: its interval, its standard error, and their number."""

    interval: Interval
    standard_error: float
    questions: int

    @property
    def smallest_visible(self) -> float:
        """The smallest true difference that such a comparison finds with 80 % probability, tested at the 5 % level."""
        return smallest_visible_difference(self.standard_error)

    @property
    def is_seen(self) -> bool:
        """True if the interval leaves out 0."""
        return not self.interval.low <= 0 <= self.interval.high


@dataclass(frozen=True, slots=True)
class VarianceParts:
    """The variance of a mean score in two parts: which questions were asked, and which samples were drawn.

    `data` and `sampling` are variances of the mean over `questions` questions of `samples` samples each; the root of `sampling` is
    the standard error of asking the same questions again.
    """

    data: float
    sampling: float
    questions: int
    samples: int

    @property
    def standard_error(self) -> float:
        """The standard error of the mean: the root of both parts together."""
        return math.sqrt(self.data + self.sampling)

    @property
    def samples_to_halve(self) -> int | None:
        """The smallest k that halves the variance, with the same number of questions; None if no k does."""
        room = (self.data + self.sampling) / 2 - self.data
        if self.sampling == 0:
            return None
        # The sampling part of k samples is sampling * samples / k. A whole ratio must not be rounded up past itself.
        return math.ceil(self.sampling * self.samples / room * (1 - 1e-12)) if room > 0 else None


def question_means(table: Table) -> np.ndarray:
    """Return the mean score of each question, P. Raises `InvalidInput` unless `table` holds P x K finite numbers, P and K > 0."""
    return _scores(table).mean(axis=1)


def _scores(table: Table) -> np.ndarray:
    allowed = "it must hold a row of equally many finite numbers for each question"
    require(
        len(table) > 0 and len({len(row) for row in table}) == 1, "table", sorted({len(row) for row in table}), allowed
    )
    scores_PK = np.asarray(table, dtype=np.float64)
    usable = scores_PK.ndim == 2 and scores_PK.size > 0 and bool(np.isfinite(scores_PK).all())
    require(usable, "table", scores_PK.shape, allowed)
    return scores_PK


def standard_error_of_questions(table: Table) -> float:
    """Return the standard error of the mean of the questions' mean scores: s / sqrt(P), s with P - 1 in its denominator.

    Samples of a question are its cluster: with equally many in each it is the clustered standard error (equation 4 of
    arXiv:2411.00640) times sqrt(P / (P - 1)). NaN for a single question. Raises `InvalidInput` as `question_means` does.
    """
    means_P = question_means(table)
    return float(means_P.std(ddof=1)) / math.sqrt(len(means_P)) if len(means_P) > 1 else math.nan


def paired_difference(first: Table, second: Table, seed: int = 0) -> PairedDifference:
    """Compare two models on the same questions; row i of both tables is question i, and k may differ.

    The interval resamples whole questions (`bootstrap_mean_interval` of the P differences). Raises `InvalidInput` for tables of
    different lengths, and as `question_means` does.
    """
    require(len(first) == len(second), "second", len(second), f"it must hold the same {len(first)} questions")
    differences_P = question_means(first) - question_means(second)
    error = standard_error_of_questions(differences_P[:, None])
    return PairedDifference(bootstrap_mean_interval(differences_P, seed=seed), error, len(differences_P))


def smallest_visible_difference(standard_error: float) -> float:
    """Return the smallest true difference that is found with 80 % probability by a two-sided test at the 5 % level.

    (z_0.975 + z_0.8) standard_error = 2.80 standard_error (section 5 of arXiv:2411.00640).
    """
    return (Z_95 + Z_POWER_80) * standard_error


def variance_parts(table: Table) -> VarianceParts:
    """Split the variance of the mean score into the part of questions and the part of sampling, both estimated without bias.

    With s_i^2 the variance within question i (k - 1 in its denominator), the sampling part is mean(s_i^2) / (k P), and the data
    part is what the variance between questions' means leaves over: (Var(means) - mean(s_i^2) / k) / P, or 0 where chance makes that
    negative. Raises `InvalidInput` unless there are at least 2 questions with 2 samples each.
    """
    scores_PK = _scores(table)
    questions, samples = scores_PK.shape
    require(
        min(questions, samples) >= 2, "table", scores_PK.shape, "there must be at least 2 questions with 2 samples each"
    )
    of_sampling = float(scores_PK.var(axis=1, ddof=1).mean()) / samples
    of_data = max(0.0, float(scores_PK.mean(axis=1).var(ddof=1)) - of_sampling)
    return VarianceParts(of_data / questions, of_sampling / questions, questions, samples)
