"""Fits of scaling laws: constants that made the numbers are found again, and so are straight lines by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from r1_lightning.functional.scaling_fits import bootstrap, fit_loss_law, fit_power_law, frontier
from r1_lightning.functional.scaling_laws import LossLaw
from r1_lightning.types.errors import InvalidInput

HOFFMANN = LossLaw(1.69337, 406.40, 410.72, 0.33917084, 0.2849083)
BESIROGLU = LossLaw(1.8172, 482.01, 2085.43, 0.3478, 0.3658)
N = np.repeat(np.geomspace(5e7, 1.6e10, 6), 6)
D = np.tile(np.geomspace(5e9, 5e11, 6), 6)


def losses(law: LossLaw) -> np.ndarray:
    return np.array([law.loss(n, d) for n, d in zip(N, D, strict=True)])


@pytest.mark.slow  # several seconds: the optimizer runs from four starts of 4,500
@pytest.mark.parametrize(
    ("law", "exponent"), [(HOFFMANN, 0.456526), (BESIROGLU, 0.512612)], ids=["hoffmann", "besiroglu"]
)
def test_published_constants_are_recovered_from_their_losses(law, exponent):
    found = fit_loss_law(N, D, losses(law))
    assert found.irreducible == pytest.approx(law.irreducible, rel=1e-6)
    assert found.a_scale == pytest.approx(law.a_scale, rel=1e-5)
    assert found.b_scale == pytest.approx(law.b_scale, rel=1e-5)
    assert (found.alpha, found.beta) == pytest.approx((law.alpha, law.beta), rel=1e-6)
    assert found.exponent == pytest.approx(exponent, abs=1e-6)


def test_noise_leaves_the_constants_within_its_errors():
    """0.1 % of noise: the standard errors of alpha, beta and E are about 0.002, 0.006 and 0.007; four of them are allowed."""
    noise = np.random.default_rng(0).normal(0, 1e-3, len(N))
    found = fit_loss_law(N, D, losses(BESIROGLU) * np.exp(noise), start=HOFFMANN)
    assert found.alpha == pytest.approx(0.3478, abs=0.01)
    assert found.beta == pytest.approx(0.3658, abs=0.025)
    assert found.irreducible == pytest.approx(1.8172, abs=0.03)


def test_a_run_gone_wrong_pulls_by_no_more_than_its_sign():
    """Huber: a residual of 50 delta or of 500 delta has the same gradient, so both give the same constants."""
    noise = np.random.default_rng(1).normal(0, 1e-3, len(N))
    clean = losses(BESIROGLU) * np.exp(noise)
    found = []
    for factor in (1.05, 1.6):
        bad = clean.copy()
        bad[7] *= factor
        found.append(fit_loss_law(N, D, bad, start=BESIROGLU))
    assert found[0].alpha == pytest.approx(found[1].alpha, rel=1e-5)
    assert found[0].beta == pytest.approx(found[1].beta, rel=1e-5)


def test_a_run_counted_twice_is_two_runs():
    noise = np.random.default_rng(2).normal(0, 1e-3, len(N))
    noisy = losses(BESIROGLU) * np.exp(noise)
    weights = np.ones(len(N))
    weights[3] = 2
    weighted = fit_loss_law(N, D, noisy, weights, start=BESIROGLU)
    again = fit_loss_law(*(np.append(v, v[3]) for v in (N, D, noisy)), start=BESIROGLU)
    assert weighted.alpha == pytest.approx(again.alpha, rel=1e-5)
    assert weighted.irreducible == pytest.approx(again.irreducible, rel=1e-5)


def test_a_straight_line_by_hand():
    # L = 8 / x^(1/2): x_c = 64, and log-log points 4 -> 4, 16 -> 2 lie on it.
    law = fit_power_law([4.0, 16.0, 64.0], [4.0, 2.0, 1.0])
    assert law.exponent == pytest.approx(0.5, rel=1e-12)
    assert law.scale == pytest.approx(64.0, rel=1e-12)


def test_a_line_through_scatter_by_hand():
    # u = 0, 1, 2 and v = 3, 1, 2 in natural logarithms: slope -1/2, mean (1, 2), so v = 2.5 - u/2 and log x_c = 5.
    law = fit_power_law(np.exp([0.0, 1.0, 2.0]), np.exp([3.0, 1.0, 2.0]))
    assert (law.exponent, math.log(law.scale)) == pytest.approx((0.5, 5.0), rel=1e-12)
    # The middle counted three times: mean (1, 8/5), the slope as before.
    law = fit_power_law(np.exp([0.0, 1.0, 2.0]), np.exp([3.0, 1.0, 2.0]), [1.0, 3.0, 1.0])
    assert (law.exponent, math.log(law.scale)) == pytest.approx((0.5, 4.2), rel=1e-12)


def test_the_frontier_by_hand():
    """By FLOPs: 1 -> 5.0, 2 -> 4.0 and 4.5, 3 -> 4.2 (beaten by the 4.0 of fewer FLOPs), 4 -> 3.0."""
    assert frontier([4.0, 2.0, 1.0, 3.0, 2.0], [3.0, 4.5, 5.0, 4.2, 4.0]) == [2, 4, 0]


def test_the_bootstrap_of_a_mean_by_its_formula():
    """The mean of 100 numbers of spread 1: the interval is 2 x 1.96 x 0.1 wide, give or take the draws."""
    values = np.random.default_rng(0).normal(5.0, 1.0, 100)
    values = (values - values.mean()) / values.std() + 5.0
    (found,) = bootstrap(lambda w: [float(w @ values / w.sum())], 100, 2000)
    assert found.estimate == pytest.approx(5.0, rel=1e-12)
    assert found.high - found.low == pytest.approx(0.392, rel=0.05)


def test_draws_that_cannot_be_fitted_are_drawn_again():
    """Two points: half of the draws hold one of them alone, and have no slope."""
    fitted = bootstrap(lambda w: [fit_power_law([1.0, 4.0], [2.0, 1.0], w).exponent], 2, 20)
    assert (fitted[0].low, fitted[0].high) == pytest.approx((0.5, 0.5), rel=1e-12)


@pytest.mark.parametrize(
    ("fit", "line"),
    [
        (lambda: fit_power_law([1.0, 1.0], [2.0, 1.0]), "a slope needs two different numbers"),
        (lambda: fit_power_law([1.0, 2.0], [1.0, 2.0]), "it must fall with x"),
        (lambda: fit_power_law([1.0, 2.0], [1.0, 0.0]), "losses=.* is not allowed: all numbers must be positive"),
        (lambda: fit_loss_law(N[:4], D[:4], [2.0] * 4), "5 constants need at least as many"),
        (lambda: fit_loss_law(N, D, [2.0] * 4), "N, D and losses must be as many"),
        (lambda: bootstrap(lambda w: fit_loss_law(N, D, [-1.0] * 36, w), 36, 3), "only 0 draws of the runs"),
    ],
)
def test_what_cannot_be_fitted_is_refused(fit, line):
    with pytest.raises(InvalidInput, match=line):
        fit()
