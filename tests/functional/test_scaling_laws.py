"""Scaling laws against numbers worked by hand and the papers' own."""

from __future__ import annotations

import math

import pytest

from r1_lightning.functional.scaling_laws import PF_DAY, KaplanLaw, LossLaw, PowerLaw, tokens_for, training_flops
from r1_lightning.types.errors import InvalidInput

ROUNDED = LossLaw(1.69, 406.4, 410.7, 0.34, 0.28)
HOFFMANN = LossLaw(1.69337, math.exp(6.0073404), math.exp(6.0179186), 0.33917084, 0.2849083)
BESIROGLU = LossLaw(1.8172, 482.01, 2085.43, 0.3478, 0.3658)
KAPLAN = KaplanLaw(6.4e13, 1.8e13, 0.076, 0.103, 1.3e9, 0.73)


def test_a_power_law_by_hand():
    # (8.8e13 / 1.5e9)^0.076 = exp(0.076 x 10.97964) = exp(0.834453) = 2.30355.
    law = PowerLaw(8.8e13, 0.076)
    assert law.loss(8.8e13) == 1.0
    assert law.loss(1.5e9) == pytest.approx(2.30355, rel=1e-5)


def test_a_loss_by_hand():
    # 0.5 + 8 / 4^0.5 + 27 / 27^(1/3) = 0.5 + 4 + 9.
    assert LossLaw(0.5, 8.0, 27.0, 0.5, 1 / 3).loss(4.0, 27.0) == pytest.approx(13.5, rel=1e-12)


def test_the_best_by_hand():
    """alpha = beta = 1 and A = 4 B: G = 4^(1/2) = 2, so C = 600 gives N = 2 x 100^(1/2) = 20 and D = 5."""
    law = LossLaw(0.0, 4.0, 1.0, 1.0, 1.0)
    assert law.best_parameters(600.0) == pytest.approx(20.0, rel=1e-12)
    assert tokens_for(600.0, 20.0) == pytest.approx(5.0, rel=1e-12)
    assert law.flops_of_parameters(20.0) == pytest.approx(600.0, rel=1e-12)
    assert law.flops_of_tokens(5.0) == pytest.approx(600.0, rel=1e-12)


@pytest.mark.parametrize(("law", "ratio"), [(ROUNDED, 92.6), (HOFFMANN, 58.9), (BESIROGLU, 18.4)])
def test_tokens_per_parameter_at_the_compute_of_chinchilla(law, ratio):
    """5.76e23 FLOPs: rounded exponents alone make 93 out of 59, and the fit anew gives the 18 to 20 of Hoffmann's other methods."""
    parameters = law.best_parameters(5.76e23)
    assert tokens_for(5.76e23, parameters) / parameters == pytest.approx(ratio, abs=0.05)


def test_exponents_of_the_papers():
    assert ROUNDED.exponent == pytest.approx(0.4516, abs=5e-5)  # 0.28 / 0.62
    assert BESIROGLU.exponent == pytest.approx(0.5126, abs=5e-5)  # the paper's a


@pytest.mark.parametrize("law", [ROUNDED, HOFFMANN, BESIROGLU])
def test_no_other_split_of_the_budget_is_better(law):
    flops = 1e21
    best = law.best_parameters(flops)
    least = law.loss(best, tokens_for(flops, best))
    assert all(law.loss(best * f, tokens_for(flops, best * f)) > least for f in (0.9, 0.99, 1.01, 1.1))


@pytest.mark.parametrize("law", [HOFFMANN, BESIROGLU, KAPLAN])
def test_a_budget_is_found_again_from_its_best_n_and_d(law):
    parameters = law.best_parameters(3e22)
    assert law.flops_of_parameters(parameters) == pytest.approx(3e22, rel=1e-9)
    assert law.flops_of_tokens(tokens_for(3e22, parameters)) == pytest.approx(3e22, rel=1e-9)


def test_kaplan_by_hand():
    # One PF-day is 8.64e19 FLOPs: N = 1.3e9 and D = 8.64e19 / 7.8e9 = 1.10769e10.
    assert PF_DAY == 8.64e19
    assert KAPLAN.best_parameters(PF_DAY) == pytest.approx(1.3e9, rel=1e-12)
    assert KAPLAN.flops_of_tokens(8.64e19 / 7.8e9) == pytest.approx(PF_DAY, rel=1e-9)
    # Without a limit of data: (6.4e13 / N)^0.076; without one of weights: (1.8e13 / D)^0.103.
    assert KAPLAN.loss(6.4e9, 1e40) == pytest.approx(10_000**0.076, rel=1e-9)
    assert KAPLAN.loss(1e60, 1.8e10) == pytest.approx(1000**0.103, rel=1e-9)


def test_flops_by_hand():
    assert training_flops(37e9, 14.8e12) == pytest.approx(3.2856e24, rel=1e-12)


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: LossLaw(-0.1, 1.0, 1.0, 1.0, 1.0), "irreducible=-0.1 is not allowed"),
        (lambda: LossLaw(0.0, 1.0, 1.0, 0.0, 1.0), "alpha=0.0 is not allowed"),
        (lambda: PowerLaw(1.0, math.nan), "exponent=nan is not allowed"),
        (lambda: KaplanLaw(1.0, 1.0, 1.0, 1.0, 1.0, 1.0), "best_exponent=1.0 is not allowed: it must be below 1"),
    ],
)
def test_what_is_no_law_is_refused(make, line):
    with pytest.raises(InvalidInput, match=line):
        make()
