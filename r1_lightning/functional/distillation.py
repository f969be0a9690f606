"""Distillation: a student learns a teacher's distribution over the next token (Hinton et al. 2015, arXiv:1503.02531).

    L = alpha T^2 D(p_T, q_T) + (1 - alpha) CE        p_T = softmax(v / T) of the teacher, q_T = softmax(z / T) of the student

Convention: alpha weighs the teacher, CE is the student's cross-entropy with the text at temperature 1, T (`distill_temperature`)
applies to both sides, and T^2 keeps the soft gradients' size, which shrink as 1 / T^2 (section 2; the symbol alpha is not in the
paper, which gives the hard term a "considerably lower weight"). Both terms are sums over the target tokens, divided by the number
of target tokens in the whole optimizer step, so that any split into micro-batches gives the same gradient.

D is one of (Agarwal et al. 2023, GKD, arXiv:2306.13649, section 2 and 3)

| name | D(p, q) | |
|---|---|---|
| `ForwardKL` | KL(p, q) = sum p log(p / q) | mode-covering; Hinton's loss, up to the teacher's entropy |
| `ReverseKL` | KL(q, p) | mode-seeking |
| `GeneralisedJS` | beta KL(p, m) + (1 - beta) KL(q, m), m = beta p + (1 - beta) q | between them |

For beta -> 0, D / beta of `GeneralisedJS` tends to KL(p, q); for beta -> 1, D / (1 - beta) tends to KL(q, p).

Text that the student sampled itself (on-policy) has no ground-truth token, so CE is dropped: L = alpha T^2 D.

R1's own distillation uses no teacher distribution: it trains on the teacher's text (CE alone, `alpha` 0).

The FP32 logits of student and teacher would be the largest tensors of a step, so they are computed for a chunk of tokens at a
time, and recomputed in backward.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from r1_lightning.types.errors import require, require_number
from r1_lightning.types.tensors import LossOutput

# Shape legend: N target tokens, n of them in a chunk, V vocabulary, K likeliest tokens, C categories (V, or K + 1),
# D model width (each model has its own).

CHUNK_LOGITS = 2**24  # entries of a chunk's logits: 64 MB in FP32 (see `functional.logprobs`)


@runtime_checkable
class Divergence(Protocol):
    """Maps finite log-probs of teacher and student over the same categories (N x C each) to D per token (N, nats)."""

    def __call__(self, teacher_NC: Tensor, student_NC: Tensor) -> Tensor: ...


def kl_divergence(p_NC: Float[Tensor, "N C"], q_NC: Float[Tensor, "N C"]) -> Float[Tensor, "N"]:
    """Return KL(p, q) = sum over categories of p log(p / q), from log-probs (nats): 0 if p = q, else above 0."""
    return (p_NC.exp() * (p_NC - q_NC)).sum(-1)


@dataclass(frozen=True)
class ForwardKL:
    """KL(teacher, student)."""

    def __call__(self, teacher_NC: Float[Tensor, "N C"], student_NC: Float[Tensor, "N C"]) -> Float[Tensor, "N"]:
        return kl_divergence(teacher_NC, student_NC)


@dataclass(frozen=True)
class ReverseKL:
    """KL(student, teacher)."""

    def __call__(self, teacher_NC: Float[Tensor, "N C"], student_NC: Float[Tensor, "N C"]) -> Float[Tensor, "N"]:
        return kl_divergence(student_NC, teacher_NC)


@dataclass(frozen=True)
class GeneralisedJS:
    """beta KL(teacher, m) + (1 - beta) KL(student, m) with m = beta teacher + (1 - beta) student (GKD eq 1).

    `beta` lies strictly between 0 and 1: at either end D is 0 for every student.
    """

    beta: float = 0.5

    def __post_init__(self) -> None:
        require_number("stage.objective.divergence.beta", self.beta, 0.0, 1.0, open_minimum=True)
        allowed = "it must be below 1; use ReverseKL for the limit"
        require(self.beta < 1, "stage.objective.divergence.beta", self.beta, allowed)

    def __call__(self, teacher_NC: Float[Tensor, "N C"], student_NC: Float[Tensor, "N C"]) -> Float[Tensor, "N"]:
        beta = self.beta
        mixture_NC = torch.logaddexp(teacher_NC + math.log(beta), student_NC + math.log1p(-beta))
        return beta * kl_divergence(teacher_NC, mixture_NC) + (1 - beta) * kl_divergence(student_NC, mixture_NC)


def lumped(logprobs_NV: Float[Tensor, "N V"], ids_NK: Int[Tensor, "N K"]) -> Float[Tensor, "N _"]:
    """Return the log-probs of the K tokens `ids_NK`, then of all other tokens as one category: N x (K + 1), or N x K if K = V.

    Merging categories can only lower a KL (data processing inequality): differences among the other tokens are not compared.
    """
    chosen_NK = logprobs_NV.gather(-1, ids_NK)
    if ids_NK.shape[1] == logprobs_NV.shape[1]:
        return chosen_NK
    rest_N1 = logprobs_NV.scatter(-1, ids_NK, -torch.inf).logsumexp(-1, keepdim=True)
    return torch.cat([chosen_NK, rest_N1], dim=-1)


def top_k_logprobs(
    logits_NV: Float[Tensor, "N V"], top_k: int, distill_temperature: float
) -> tuple[Int[Tensor, "N K"], Float[Tensor, "N C"]]:
    """Return the `top_k` likeliest tokens, sorted by id, and `lumped` log-probs of softmax(logits / distill_temperature)."""
    ids_NK = logits_NV.topk(top_k, dim=-1).indices.sort(dim=-1).values
    return ids_NK, lumped((logits_NV.float() / distill_temperature).log_softmax(-1), ids_NK)


@runtime_checkable
class TeacherTokens(Protocol):
    """The teacher's distributions at the N target tokens: complete (`FullTeacher`) or truncated (`TopKTeacher`)."""

    def compare(self, start: int, student_nV: Tensor, distill_temperature: float) -> tuple[Tensor, Tensor]:
        """Return log-probs of teacher and student over the same categories, n x C each, for the n targets from `start` on."""
        ...


@dataclass(frozen=True)
class FullTeacher:
    """A teacher in memory: its hidden states N x D, and its head as `unembed` (n x D to logits, n x at least V)."""

    hidden_ND: Tensor
    unembed: Callable[[Tensor], Tensor]

    def compare(self, start: int, student_nV: Tensor, distill_temperature: float) -> tuple[Tensor, Tensor]:
        n_tokens, vocabulary = student_nV.shape
        with torch.no_grad():
            logits_nV = self.unembed(self.hidden_ND[start : start + n_tokens])[:, :vocabulary].float()
            teacher_nV = (logits_nV / distill_temperature).log_softmax(-1)
        return teacher_nV, (student_nV / distill_temperature).log_softmax(-1)


@dataclass(frozen=True)
class TopKTeacher:
    """A cached teacher: ids N x K of its likeliest tokens and `lumped` log-probs N x (K + 1) at the same distill_temperature."""

    ids_NK: Tensor
    logprobs_NC: Tensor

    def compare(self, start: int, student_nV: Tensor, distill_temperature: float) -> tuple[Tensor, Tensor]:
        rows = slice(start, start + len(student_nV))
        student_nC = lumped((student_nV / distill_temperature).log_softmax(-1), self.ids_NK[rows])
        return self.logprobs_NC[rows], student_nC


@dataclass(frozen=True)
class StudentTokens:
    """The student at the N target tokens: the hidden states N x D that predict them, the targets N, and its output head.

    `vocabulary` is the number of real tokens: D leaves out an embedding's padding rows, on both sides.
    `n_tokens` counts the tokens of the whole optimizer step. `is_on_policy` is True if the student sampled the tokens itself.
    """

    hidden_ND: Tensor
    targets_N: Tensor
    unembed: Callable[[Tensor], Tensor]
    vocabulary: int
    n_tokens: int
    is_on_policy: bool = False


@dataclass(frozen=True)
class Distillation:
    """alpha T^2 D(p_T, q_T) + (1 - alpha) CE (see the module's docstring), T being `distill_temperature`."""

    divergence: Divergence
    alpha: float = 0.9
    distill_temperature: float = 2.0

    def __post_init__(self) -> None:
        require_number("stage.objective.alpha", self.alpha, 0.0, 1.0)
        require_number("stage.objective.distill_temperature", self.distill_temperature, 0.0, open_minimum=True)

    def __call__(self, student: StudentTokens, teacher: TeacherTokens) -> LossOutput:
        """Return the loss and the metrics `train/divergence` (D, without T^2) and `train/cross_entropy`, nats per token."""
        size = max(1, CHUNK_LOGITS // student.vocabulary)
        sums = student.hidden_ND.new_zeros(2, dtype=torch.float32)
        for number, hidden_nD in enumerate(student.hidden_ND.split(size)):
            rest = (number * size, hidden_nD, student, teacher)
            if torch.is_grad_enabled():
                sums = sums + checkpoint(self._sums, *rest, use_reentrant=False, preserve_rng_state=False)
            else:
                sums = sums + self._sums(*rest)
        if not sums.requires_grad:  # alpha = 0 on on-policy text: both terms have weight 0
            sums = sums + 0.0 * student.hidden_ND.sum()  # so that backward still has a (zero) gradient
        divergence, cross_entropy = sums / max(student.n_tokens, 1)
        soft, hard = self.alpha * self.distill_temperature**2, (1 - self.alpha) * (not student.is_on_policy)
        metrics = {"train/divergence": divergence.detach(), "train/cross_entropy": cross_entropy.detach()}
        return LossOutput(soft * divergence + hard * cross_entropy, metrics)

    def _sums(self, start: int, hidden_nD: Tensor, student: StudentTokens, teacher: TeacherTokens) -> Tensor:
        """Return D and CE, each summed over a chunk's n tokens (2 numbers); a term of weight 0 is detached."""
        logits_nV = student.unembed(hidden_nD).float()
        targets_n = student.targets_N[start : start + len(hidden_nD)]
        cross_entropy = F.cross_entropy(logits_nV, targets_n, reduction="sum")
        pair = teacher.compare(start, logits_nV[:, : student.vocabulary], self.distill_temperature)
        divergence = self.divergence(*pair).sum()
        is_hard = self.alpha < 1 and not student.is_on_policy
        return torch.stack(
            [
                divergence if self.alpha > 0 else divergence.detach(),
                cross_entropy if is_hard else cross_entropy.detach(),
            ]
        )
