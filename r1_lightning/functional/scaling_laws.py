"""Scaling laws: what a language model's loss is to be at N parameters, D tokens and C = 6 N D FLOPs, and which N and D are best.

Loss falls as a power of what is spent, not exponentially. Two families of laws are in use:

    Kaplan et al. 2020 (arXiv:2001.08361)     L(x) = (x_c / x)^a for N, D or C alone (eq 1.1 to 1.3), and jointly
                                              L(N, D) = [(N_c / N)^(aN / aD) + D_c / D]^aD (eq 1.5); N without embeddings
    Hoffmann et al. 2022 (arXiv:2203.15556)   L(N, D) = E + A / N^alpha + B / D^beta (eq 10), whose best N and D for C have a closed
                                              form (eq 4)

Losses are nats per token of whatever text and tokenizer a law was fitted on, so losses of two laws do not compare. Where the
constants come from is `run/cost/published_laws.py`'s business, how they are fitted `scaling_fits.py`'s. No torch, scalars only.
"""

from __future__ import annotations

from dataclasses import dataclass

from r1_lightning.types.errors import require, require_number

FLOPS_PER_WEIGHT = 6  # and token: two forward, four backward (Kaplan, section 2.1)
PF_DAY = 1e15 * 24 * 3600  # FLOPs of a petaflop per second over a day


def training_flops(parameters: float, tokens: float) -> float:
    """C = 6 N D, attention's products left out."""
    return FLOPS_PER_WEIGHT * parameters * tokens


def tokens_for(flops: float, parameters: float) -> float:
    """D = C / (6 N)."""
    return flops / (FLOPS_PER_WEIGHT * parameters)


@dataclass(frozen=True)
class PowerLaw:
    """L(x) = (scale / x)^exponent, Kaplan eq 1.1 to 1.3; `scale` is in the unit of x. `InvalidInput` unless both are positive."""

    scale: float
    exponent: float

    def __post_init__(self) -> None:
        for field in ("scale", "exponent"):
            require_number(field, getattr(self, field), 0.0, open_minimum=True)

    def loss(self, x: float) -> float:
        return float((self.scale / x) ** self.exponent)


@dataclass(frozen=True)
class LossLaw:
    """L(N, D) = E + A / N^alpha + B / D^beta (Hoffmann eq 10): the text's entropy, and what too few weights and tokens cost.

    At C = 6 N D the loss is least where both costs fall alike, alpha A / N^alpha = beta B / D^beta (eq 4):

        N = G (C/6)^a    D = G^-1 (C/6)^b    G = (alpha A / (beta B))^(1/(alpha+beta))    a = beta / (alpha+beta) = 1 - b

    `InvalidInput` unless all constants are positive (`irreducible`, E, may be 0).
    """

    irreducible: float
    a_scale: float
    b_scale: float
    alpha: float
    beta: float

    def __post_init__(self) -> None:
        require_number("irreducible", self.irreducible, 0.0)
        for field in ("a_scale", "b_scale", "alpha", "beta"):
            require_number(field, getattr(self, field), 0.0, open_minimum=True)

    def loss(self, parameters: float, tokens: float) -> float:
        short_of = self.a_scale * parameters**-self.alpha + self.b_scale * tokens**-self.beta
        return float(self.irreducible + short_of)

    @property
    def exponent(self) -> float:
        """Exponent a of N = G (C/6)^a."""
        return self.beta / (self.alpha + self.beta)

    @property
    def ratio(self) -> float:
        """G."""
        share = self.alpha * self.a_scale / (self.beta * self.b_scale)
        return float(share ** (1 / (self.alpha + self.beta)))

    def best_parameters(self, flops: float) -> float:
        return float(self.ratio * (flops / FLOPS_PER_WEIGHT) ** self.exponent)

    def flops_of_parameters(self, parameters: float) -> float:
        """The budget at which `parameters` are the best: inverse of `best_parameters`."""
        return float(FLOPS_PER_WEIGHT * (parameters / self.ratio) ** (1 / self.exponent))

    def flops_of_tokens(self, tokens: float) -> float:
        """The budget at which `tokens` are the best."""
        return float(FLOPS_PER_WEIGHT * (tokens * self.ratio) ** (1 / (1 - self.exponent)))


@dataclass(frozen=True)
class KaplanLaw:
    """Kaplan's joint law (eq 1.5), and the N that the paper found best for a budget: `best_scale` C^`best_exponent`, C in PF-days.

    The rule is its empirical fit along runs at the critical batch size (eq 1.7), which is not where eq 1.5 is least at 6 N D = C:
    minimizing that would give the exponent 1 / (1 + aN / aD) = 0.575. We take the paper's N and D = C / (6 N). Its C counts as if
    batches were far below the critical size; a run at that size takes twice as much. `InvalidInput` for constants <= 0, and for a
    `best_exponent` that is not below 1.
    """

    n_scale: float
    d_scale: float
    alpha_n: float
    alpha_d: float
    best_scale: float
    best_exponent: float

    def __post_init__(self) -> None:
        for field in ("n_scale", "d_scale", "alpha_n", "alpha_d", "best_scale", "best_exponent"):
            require_number(field, getattr(self, field), 0.0, open_minimum=True)
        require(
            self.best_exponent < 1,
            "best_exponent",
            self.best_exponent,
            "it must be below 1, or D would not grow with C",
        )

    def loss(self, parameters: float, tokens: float) -> float:
        by_weights = (self.n_scale / parameters) ** (self.alpha_n / self.alpha_d)
        return float((by_weights + self.d_scale / tokens) ** self.alpha_d)

    def best_parameters(self, flops: float) -> float:
        return float(self.best_scale * (flops / PF_DAY) ** self.best_exponent)

    def flops_of_parameters(self, parameters: float) -> float:
        return float(PF_DAY * (parameters / self.best_scale) ** (1 / self.best_exponent))

    def flops_of_tokens(self, tokens: float) -> float:
        """From D = C / (6 best_scale (C / PF_DAY)^p): C = PF_DAY (6 D best_scale / PF_DAY)^(1 / (1 - p))."""
        share = FLOPS_PER_WEIGHT * tokens * self.best_scale / PF_DAY
        return float(PF_DAY * share ** (1 / (1 - self.best_exponent)))
