"""Losses of reward models: pairwise (Bradley and Terry 1952), or point-wise on single labelled responses.

R1 trains its helpful reward model pairwise and its safety reward model point-wise (R1v2 section 3.1). The paper prints neither
loss; these are the usual ones:

    pairwise     L = -mean log sigmoid(s_chosen - s_rejected)
    point-wise   L = -mean [y log sigmoid(s) + (1 - y) log(1 - sigmoid(s))],    y = 1 for a good (safe) response

Means are over the sequences of all processes, `n_sequences` of them: a process that holds a share of them computes its part of the
mean, and the parts add up.

The pairwise loss gives meaning to differences of scores only; under the point-wise loss a score of 0 means "as likely good as bad".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from r1_lightning.types.tensors import LossOutput

# Shape legend: S sequences, P pairs.


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
