"""Losses of preferences: reward models, pairwise (Bradley and Terry 1952) or on single labelled responses, and policies (DPO).

R1 trains its helpful reward model pairwise and its safety reward model point-wise (R1v2 section 3.1). The paper prints neither
loss; these are the usual ones:

    pairwise     L = -mean log sigmoid(s_chosen - s_rejected)
    point-wise   L = -mean [y log sigmoid(s) + (1 - y) log(1 - sigmoid(s))],    y = 1 for a good (safe) response

Means are over the sequences of all processes, `n_sequences` of them: a process that holds a share of them computes its part of the
mean, and the parts add up.

The pairwise loss gives meaning to differences of scores only; under the point-wise loss a score of 0 means "as likely good as bad".

DPO (Rafailov et al. 2023, arXiv:2305.18290) needs no reward model: a policy is one already, with the implicit reward

    r(x, y) = beta log pi(y | x) / pi_ref(y | x)                                        (its equation 5, up to a term of x alone)
    DPO     L = -mean [(1 - eps) log sigmoid(r_chosen - r_rejected) + eps log sigmoid(r_rejected - r_chosen)]    (eps 0: equation 7)
    IPO     L = mean (l_chosen - l_rejected - 1 / (2 beta))^2,    l = log(pi / pi_ref) / tokens     (Azar et al. 2023, equation 17)

eps is the share of pairs taken to be labelled the wrong way round ("conservative DPO", Mitchell 2023). IPO's paper does not say
that a log-ratio is divided by the response's number of tokens; TRL does so, after asking its authors.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from r1_lightning.types.errors import require_number
from r1_lightning.types.tensors import LossOutput

# Shape legend: S sequences, P pairs.


@runtime_checkable
class PreferenceObjective(Protocol):
    """Maps scores and labels (S each) to a loss; `is_paired` is True if sequences must come as pairs (see `PreferenceBatch`).

    `n_sequences` is the denominator of means: the number of sequences, of which this process may hold a share; None means S.
    """

    is_paired: ClassVar[bool]

    def __call__(self, scores_S: Tensor, labels_S: Tensor, n_sequences: Tensor | None = None) -> LossOutput: ...


def margins(scores_S: Float[Tensor, "S"]) -> Float[Tensor, "_"]:
    """Return s_chosen - s_rejected of each pair (P) from scores ordered chosen, rejected, chosen, rejected, ..."""
    chosen_P, rejected_P = scores_S.view(-1, 2).unbind(1)
    return chosen_P - rejected_P


def wins(margins_P: Float[Tensor, "P"]) -> Float[Tensor, "P"]:
    """1 where the chosen response has the higher score, 1/2 where both are equal, else 0."""
    return (margins_P.sign() + 1) / 2


def bradley_terry_loss(
    margins_P: Float[Tensor, "P"], n_pairs: Int[Tensor, ""] | int | None = None
) -> Float[Tensor, ""]:
    """-mean log sigmoid(s_chosen - s_rejected), nats; ln 2 where the model cannot tell. `n_pairs` divides the sum in place of P."""
    return -F.logsigmoid(margins_P).sum() / (len(margins_P) if n_pairs is None else n_pairs)


@dataclass(frozen=True)
class BradleyTerry:
    """The pairwise objective."""

    is_paired: ClassVar[bool] = True

    def __call__(self, scores_S: Tensor, labels_S: Tensor, n_sequences: Tensor | None = None) -> LossOutput:
        """Return the loss, with metrics `train/pair_accuracy` and `train/margin`; the labels are not used."""
        n_pairs = (len(scores_S) if n_sequences is None else n_sequences) // 2
        margins_P = margins(scores_S)
        told_P = margins_P.detach()
        metrics = {"train/pair_accuracy": wins(told_P).sum() / n_pairs, "train/margin": told_P.sum() / n_pairs}
        return LossOutput(bradley_terry_loss(margins_P, n_pairs), metrics)


@dataclass(frozen=True)
class PointWise:
    """The point-wise objective: binary cross-entropy of sigmoid(score). A pair counts as two labelled responses."""

    is_paired: ClassVar[bool] = False

    def __call__(self, scores_S: Tensor, labels_S: Tensor, n_sequences: Tensor | None = None) -> LossOutput:
        """Return the loss, with metrics `train/accuracy` (a score above 0 predicts good) and `train/score_mean`."""
        count = len(scores_S) if n_sequences is None else n_sequences
        right_S = (scores_S.detach() > 0) == (labels_S > 0.5)
        metrics = {
            "train/accuracy": right_S.float().sum() / count,
            "train/score_mean": scores_S.detach().sum() / count,
        }
        return LossOutput(F.binary_cross_entropy_with_logits(scores_S, labels_S, reduction="sum") / count, metrics)


@dataclass(frozen=True)
class PolicyPreference(ABC):
    """Base class of the losses that train a policy on pairs; `kl_coef` is beta. A subclass gives the loss of a pair."""

    kl_coef: float = 0.1

    def __post_init__(self) -> None:
        require_number("stage.objective.kl_coef", self.kl_coef, 0.0, open_minimum=True)

    @abstractmethod
    def pair_losses(self, log_ratios_S: Float[Tensor, "S"], tokens_S: Float[Tensor, "S"]) -> Float[Tensor, "_"]:
        """The loss of each pair (P)."""

    def __call__(self, log_ratios_S: Tensor, tokens_S: Tensor, n_sequences: Tensor | None = None) -> LossOutput:
        """Return the loss, from log(pi / pi_ref) of whole responses (nats, chosen and rejected in turn) and their lengths.

        Metrics are means over pairs: `dpo/reward_accuracy` (a tie counts half), `dpo/margin`, `dpo/chosen_reward` and
        `dpo/rejected_reward` of the implicit reward. `n_sequences` is as in `PreferenceObjective`.
        """
        n_pairs = (len(log_ratios_S) if n_sequences is None else n_sequences) // 2
        rewards_S = self.kl_coef * log_ratios_S.detach()
        margins_P, (chosen, rejected) = margins(rewards_S), rewards_S.view(-1, 2).sum(0)
        sums = {"reward_accuracy": wins(margins_P).sum(), "margin": margins_P.sum()}
        sums |= {"chosen_reward": chosen, "rejected_reward": rejected}
        loss = self.pair_losses(log_ratios_S, tokens_S).sum() / n_pairs
        return LossOutput(loss, {f"dpo/{name}": value / n_pairs for name, value in sums.items()})


@dataclass(frozen=True)
class DPO(PolicyPreference):
    """DPO; `label_smoothing` is eps."""

    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number("stage.objective.label_smoothing", self.label_smoothing, 0.0, 0.5)

    def pair_losses(self, log_ratios_S: Float[Tensor, "S"], tokens_S: Float[Tensor, "S"]) -> Float[Tensor, "_"]:
        margins_P, eps = self.kl_coef * margins(log_ratios_S), self.label_smoothing
        return -(1 - eps) * F.logsigmoid(margins_P) - eps * F.logsigmoid(-margins_P)


class IPO(PolicyPreference):
    """IPO: a margin as large as 1 / (2 beta), and no larger."""

    def pair_losses(self, log_ratios_S: Float[Tensor, "S"], tokens_S: Float[Tensor, "S"]) -> Float[Tensor, "_"]:
        return (margins(log_ratios_S / tokens_S) - 1 / (2 * self.kl_coef)) ** 2
