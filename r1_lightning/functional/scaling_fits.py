"""Fits of the laws in `scaling_laws.py` to measured losses, with intervals by the bootstrap.

Hoffmann et al. 2022 (arXiv:2203.15556, appendix D.2) fit L(N, D) = E + A / N^alpha + B / D^beta on the log loss:

    min over a, b, e, alpha, beta of   sum_i Huber_delta( LSE(a - alpha log N_i, b - beta log D_i, e) - log L_i )
    A = exp a, B = exp b, E = exp e, delta = 1e-3; L-BFGS from a grid of starts, of which the lowest minimum counts

Besiroglu et al. 2024 (arXiv:2404.10102) found the published constants far from the data: the objective was a mean over runs and not
a sum, so small that the optimizer's tolerances ended it early, and rounded exponents move the best N and D. So here the sum is
divided by delta^2 (residuals in units of delta, gradients of about 1), and nothing is rounded. log N and log D are centred, which
makes a and alpha, b and beta nearly independent: the same minimum in far fewer steps. The whole grid is looked at, and the
optimizer runs from the best few starts. One power law is a straight line in logarithms, with a closed form.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
import torch
from torch import Tensor

from r1_lightning.functional.intervals import TAIL_PERCENT, Interval
from r1_lightning.functional.scaling_laws import LossLaw, PowerLaw
from r1_lightning.types.errors import require, require_int, require_number

# Shape legend: I measured runs, S starts.

Numbers = Sequence[float] | np.ndarray

DELTA = 1e-3
# Hoffmann's grid: a, b, e, alpha, beta.
GRID = tuple(product(range(0, 30, 5), range(0, 30, 5), (-1.0, -0.5, 0.0, 0.5, 1.0), *[(0.0, 0.5, 1.0, 1.5, 2.0)] * 2))
STARTS = 4  # of the grid, from which the optimizer runs
MOST_STEPS = 2000
PARAMETERS = 5


def fit_power_law(x: Numbers, losses: Numbers, weights: Numbers | None = None) -> PowerLaw:
    """Least squares of log L = a log x_c - a log x over runs of `x` (I) and `losses` (I), counted with `weights`.

    Raises `InvalidInput` for fewer than two different x, for numbers that are not positive, and for a loss that does not fall.
    """
    u, v = np.log(_positive("x", x)), np.log(_positive("losses", losses))
    require(len(u) == len(v), "losses", f"{len(v)} losses", f"there must be one for each of {len(u)} runs")
    w = np.ones(len(u)) if weights is None else np.asarray(weights, dtype=np.float64)
    centre, level = np.average(u, weights=w), np.average(v, weights=w)
    spread = float(w @ (u - centre) ** 2)
    require(spread > 0, "x", sorted(set(map(float, x))), "a slope needs two different numbers")
    slope = float(w @ ((u - centre) * (v - level))) / spread
    require(slope < 0, "losses", f"slope {slope:.3g} of log loss", "it must fall with x")
    return PowerLaw(float(np.exp(centre - level / slope)), -slope)


def fit_loss_law(
    parameters: Numbers,
    tokens: Numbers,
    losses: Numbers,
    weights: Numbers | None = None,
    delta: float = DELTA,
    start: LossLaw | None = None,
) -> LossLaw:
    """The constants of L(N, D) that the module's objective is least at, for I runs, counted with `weights` (default: once each).

    From `start` alone if it is given, else from the best starts of the grid. Raises `InvalidInput` for fewer runs than constants,
    and for numbers that are not positive.
    """
    require_number("delta", delta, 0.0, open_minimum=True)
    logs = [torch.from_numpy(np.log(_positive(name, given))) for name, given in _named(parameters, tokens, losses)]
    sizes = {len(values) for values in logs}
    require(len(sizes) == 1, "losses", f"{sorted(sizes)} numbers", "N, D and losses must be as many")
    w = torch.ones_like(logs[2]) if weights is None else torch.as_tensor(weights, dtype=torch.float64)
    counted = int((w > 0).sum())
    require(counted >= PARAMETERS, "losses", f"{counted} runs", f"{PARAMETERS} constants need at least as many")
    centres = (float(logs[0].mean()), float(logs[1].mean()))
    x, y = logs[0] - centres[0], logs[1] - centres[1]

    def objective(theta_5S: Tensor) -> Tensor:
        return _objective(theta_5S, x, y, logs[2], w, delta)

    starts = torch.tensor(GRID if start is None else [_constants(start)], dtype=torch.float64).T.clone()
    starts[0] -= starts[3] * centres[0]  # a and b at the centres
    starts[1] -= starts[4] * centres[1]
    chosen = objective(starts).argsort()[:STARTS]
    found = [_minimized(objective, starts[:, place : place + 1]) for place in chosen]
    a, b, e, alpha, beta = min(found, key=lambda pair: pair[0])[1]
    a_scale, b_scale = np.exp(a + alpha * centres[0]), np.exp(b + beta * centres[1])
    return LossLaw(float(np.exp(e)), float(a_scale), float(b_scale), alpha, beta)


def _objective(theta_5S: Tensor, x: Tensor, y: Tensor, log_losses: Tensor, weights: Tensor, delta: float) -> Tensor:
    """Sum over runs of Huber's loss in units of delta^2, for each start (S)."""
    a, b, e, alpha, beta = theta_5S[:, :, None]
    terms = torch.stack([a - alpha * x, b - beta * y, e.expand(-1, len(x))])
    residuals = torch.logsumexp(terms, 0) / delta - log_losses / delta
    return (weights * torch.nn.functional.huber_loss(residuals, torch.zeros_like(residuals), reduction="none")).sum(-1)


def _minimized(objective: Callable[[Tensor], Tensor], start_51: Tensor) -> tuple[float, list[float]]:
    """The least value that L-BFGS reaches from this start, and where; infinity if it leaves the numbers."""
    theta = start_51.clone().requires_grad_(True)
    optimizer = torch.optim.LBFGS(
        [theta],
        max_iter=MOST_STEPS,
        tolerance_grad=1e-6,
        tolerance_change=1e-11,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = objective(theta).sum()
        value.backward()
        return value

    optimizer.step(closure)
    with torch.no_grad():
        value = float(objective(theta))
    return (value if np.isfinite(value) else float("inf")), theta.detach().flatten().tolist()


def frontier(flops: Numbers, losses: Numbers) -> list[int]:
    """The runs, by number and in the order of their FLOPs, whose loss is below that of every run with no more FLOPs."""
    best, found = float("inf"), []
    for place in np.lexsort((np.asarray(losses), np.asarray(flops))):
        if losses[place] < best:
            best = float(losses[place])
            found.append(int(place))
    return found


def bootstrap(
    fit: Callable[[np.ndarray], Sequence[float]], n_runs: int, resamples: int = 200, seed: int = 0
) -> list[Interval]:
    """The numbers that `fit` returns, each with its 95 % percentile interval over `resamples` draws of the runs with replacement.

    `fit` gets how often each run was drawn (I). A draw that it refuses (`InvalidInput`, too few different runs) is drawn again.
    """
    require_int("n_runs", n_runs, 2)
    require_int("resamples", resamples, 1)
    generator = np.random.default_rng(seed)
    drawn: list[Sequence[float]] = []
    for _ in range(10 * resamples):
        weights = generator.multinomial(n_runs, np.full(n_runs, 1 / n_runs)).astype(np.float64)
        try:
            drawn.append(fit(weights))
        except ValueError:
            continue
        if len(drawn) == resamples:
            break
    require(len(drawn) == resamples, "resamples", resamples, f"only {len(drawn)} draws of the runs could be fitted")
    low, high = np.percentile(np.array(drawn), [TAIL_PERCENT, 100 - TAIL_PERCENT], axis=0)
    return [Interval(float(e), float(a), float(b)) for e, a, b in zip(fit(np.ones(n_runs)), low, high, strict=True)]


def _constants(law: LossLaw) -> tuple[float, ...]:
    """a, b, e, alpha, beta."""
    scales = (law.a_scale, law.b_scale, max(law.irreducible, 1e-12))
    return (*map(float, np.log(scales)), law.alpha, law.beta)


def _named(parameters: Numbers, tokens: Numbers, losses: Numbers) -> list[tuple[str, Numbers]]:
    return [("parameters", parameters), ("tokens", tokens), ("losses", losses)]


def _positive(name: str, given: Numbers) -> np.ndarray:
    values = np.asarray(given, dtype=np.float64)
    is_positive = bool(np.isfinite(values).all() and (values > 0).all())
    require(is_positive, name, values.tolist(), "all numbers must be positive and finite")
    return values
