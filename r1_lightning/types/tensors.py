"""Values that cross layers as tensors, and the Protocols of the parts that exchange them.

One layout serves pre-training and RL alike: **packed rows**. A row of T tokens holds several documents one after the
other; `document_ids` says which token belongs to which (0 is padding), positions restart at every border, and attention
never crosses one. So no compute is spent on padding a short completion to the length of a long one.

Shape legend: B rows, T positions, V vocabulary, D model width, E routed experts, L layers with experts, S sequences
(completions) in a minibatch, R rows being sampled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, Self, runtime_checkable

import torch
from torch import Tensor


class _Movable:
    """Mixin for frozen dataclasses of tensors: `.to(device)`, which Lightning calls on every batch."""

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        moved = {}
        for item in fields(self):  # type: ignore[arg-type]
            value = getattr(self, item.name)
            if isinstance(value, (Tensor, _Movable)):
                moved[item.name] = value.to(device, non_blocking=non_blocking)
        return replace(self, **moved)  # type: ignore[type-var]


@dataclass(frozen=True)
class TokenBatch(_Movable):
    """Packed token rows.

    token_ids B x T; position_ids B x T, restarting at 0 in every document; document_ids B x T, 1, 2, ... within a row
    and 0 for padding.
    """

    token_ids: Tensor
    position_ids: Tensor
    document_ids: Tensor

    @classmethod
    def of_whole_rows(cls, token_ids: Tensor) -> TokenBatch:
        """One document per row and no padding; `token_ids` B x T."""
        positions = torch.arange(token_ids.shape[1], device=token_ids.device).expand_as(token_ids)
        return cls(token_ids, positions, torch.ones_like(token_ids))

    @property
    def is_token(self) -> Tensor:
        """B x T, True where there is a token and not padding."""
        return self.document_ids > 0


# Parts of weights that lie side by side, along the last dimension, in a tensor of a checkpoint.
Views = tuple[Tensor, ...]


@dataclass(frozen=True)
class BackboneOutput:
    """What a backbone computes before the head.

    hidden B x T x D, normed, ready for `unembed`; mtp, one B x T x D per prediction depth, normed, empty where the model
    has none; expert_load L x E, how many tokens chose each expert (zeros outside training), L = 0 for a dense model;
    balance_loss, a scalar, already weighted by its alpha; routes L x B x T x K, the chosen experts.
    """

    hidden: Tensor
    mtp: tuple[Tensor, ...]
    expert_load: Tensor
    balance_loss: Tensor
    routes: Tensor

    @classmethod
    def dense(cls, hidden: Tensor, mtp: tuple[Tensor, ...] = ()) -> BackboneOutput:
        """The output of a model without experts."""
        load, routes = (hidden.new_zeros(shape, dtype=torch.long) for shape in ((0, 0), (0, *hidden.shape[:2], 0)))
        return cls(hidden, mtp, load, hidden.new_zeros(()), routes)


@dataclass(frozen=True)
class LossOutput:
    """A scalar to minimise, and detached scalars to log, by their metric names."""

    loss: Tensor
    metrics: Mapping[str, Tensor]


@dataclass(frozen=True)
class GRPOBatch(_Movable):
    """One minibatch of completions in packed rows.

    All B x T fields speak of the token at the same place in `tokens`: `old_logprobs[b, t]` is the log-prob (nats, of
    softmax(logits / sampling_temperature)) with which the policy that sampled it gave token t. `completion_mask` is True
    on completion tokens, EOS included. `sequence_ids` maps each token to its sequence, 0 .. S - 1 (-1 on padding).
    `advantages` (B x T) are 0 outside of completions. `completion_tokens` is per sequence (S); `n_sequences` and `n_tokens`
    count the sequences and the completion tokens of the whole minibatch, over all micro-batches and processes: the
    denominators of means.
    `policy_version` counts the optimizer steps that the sampling policy had taken. `routes` L x B x T x K are the experts that the
    sampler chose at each place, -1 where it is not known; None where they are not to be replayed.
    """

    tokens: TokenBatch
    completion_mask: Tensor
    old_logprobs: Tensor
    sampler_logprobs: Tensor
    sequence_ids: Tensor
    advantages: Tensor
    completion_tokens: Tensor
    n_sequences: int
    n_tokens: int
    policy_version: int
    routes: Tensor | None = None


@dataclass(frozen=True)
class ChatBatch(_Movable):
    """Questions with their completions as documents of packed rows, for supervised fine-tuning.

    `completion_mask` B x T is True on completion tokens, EOS included. `step_lengths` S x 2 are the tokens of the prompt and of the
    whole of each document of the optimizer step, over all of its micro-batches: the denominators of means.
    """

    tokens: TokenBatch
    completion_mask: Tensor
    step_lengths: Tensor

    def n_targets(self, places: int) -> Tensor:
        """How many completion tokens of the step stand `places` or more tokens behind the start of their document (a scalar)."""
        prompt_S, whole_S = self.step_lengths.unbind(1)
        return (whole_S - prompt_S.clamp(min=places)).clamp(min=0).sum()


@dataclass(frozen=True)
class PreferenceBatch(_Movable):
    """S prompts with their responses as documents of packed rows, for a reward model.

    `ends` S is the flat place (row * T + column) of each document's last token, EOS, where its score is read; `labels` S is 1.0
    for a good response, else 0.0. Where `is_paired`, sequences 2i and 2i + 1 answer one question, the chosen one first.
    """

    tokens: TokenBatch
    ends: Tensor
    labels: Tensor
    is_paired: bool


@dataclass(frozen=True)
class DistillBatch(_Movable):
    """Text that a student learns from a teacher, in packed rows.

    `target_mask` B x T is True at the C tokens that are to be predicted, never at a document's first: nothing stands before it.
    `n_tokens` counts those of the whole optimizer step, over all micro-batches: the denominator of means. `is_text` is False where
    the student wrote the text itself. `top_ids` C x K and `top_logprobs` C x (K + 1) (C x K where K is the vocabulary) are what a
    cache knows of the teacher at those tokens, in the order of the rows: its likeliest tokens with their log-probs, and that of
    all others together (`functional.distillation.lumped`); None where the teacher itself is asked.
    """

    tokens: TokenBatch
    target_mask: Tensor
    n_tokens: int
    is_text: bool = True
    top_ids: Tensor | None = None
    top_logprobs: Tensor | None = None


@dataclass(frozen=True)
class Generation(_Movable):
    """Completions of R rows, right-padded to the longest.

    completion_ids R x T; completion_mask R x T, EOS included; policy_logprobs R x T, of softmax(logits /
    sampling_temperature); sampler_logprobs R x T, of the distribution really drawn from (top-p renormalises it);
    finished R, True where EOS ended the row; routes L x R x T x K, the experts chosen where each token was predicted, and
    prompt_routes L x R x Tp x K, those of the prompt's tokens but its last, which predicts the first completion token
    (left-padded with -1), when the sampler records them, else empty.
    """

    completion_ids: Tensor
    completion_mask: Tensor
    policy_logprobs: Tensor
    sampler_logprobs: Tensor
    finished: Tensor
    routes: Tensor
    prompt_routes: Tensor


@runtime_checkable
class LatentCache(Protocol):
    """Past keys and values of the rows being sampled."""

    @property
    def bytes(self) -> int: ...

    def select_rows(self, rows: Tensor) -> None:
        """Keep only `rows` (indices, repeats allowed: a prompt's row serves its whole group)."""
        ...


@runtime_checkable
class Backbone(Protocol):
    """A language model as sampling and scoring see it: ours and the HuggingFace adapter fit it."""

    def hidden(self, batch: TokenBatch, with_mtp: bool = True, replayed_LBTK: Tensor | None = None) -> BackboneOutput:
        """Packed rows to normed hidden states; `replayed_LBTK` names experts to take instead of choosing (-1: choose)."""
        ...

    def unembed(self, hidden: Tensor) -> Tensor:
        """... x D to logits ... x V."""
        ...

    def token_logprobs(
        self, hidden_ND: Tensor, targets_N: Tensor, sampling_temperature: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """Log-probs (with gradients) of softmax(`unembed` / sampling_temperature) at the targets, and its entropies; N, nats."""
        ...

    def new_cache(self, rows: int, max_tokens: int) -> LatentCache: ...

    def step(self, token_ids: Tensor, is_token: Tensor, cache: Any) -> BackboneOutput:
        """R x T newest tokens (left-padded; `is_token` R x T) to normed hidden R x T x D, filling a cache of its own making."""
        ...


@runtime_checkable
class DraftingBackbone(Backbone, Protocol):
    """A `Backbone` whose first MTP module drafts the token after the next (V3 section 5.4.3).

    Its caches know, besides, `room`, `forget_newest` and `close_gaps` (`model/kv_cache.py`).
    """

    @property
    def mtp_depth(self) -> int:
        """How many MTP modules there are; without one nothing can be drafted."""
        ...

    def new_mtp_cache(self, rows: int, max_tokens: int) -> LatentCache: ...

    def step_mtp(self, hidden: Tensor, next_ids: Tensor, is_token: Tensor, cache: Any) -> Tensor:
        """Hidden R x T x D of `step` and the tokens R x T one place further on, to R x T x D for `unembed`."""
        ...


@runtime_checkable
class Balanced(Protocol):
    """A `Backbone` whose experts are kept in balance by biases, as the stages that move them see it (V3 section 2.1.2).

    A dense model has none: its `expert_bias` is empty (L = 0) and setting it does nothing.
    """

    def expert_bias(self) -> Tensor:
        """All routers' biases, L x E, FP32, in the order of `BackboneOutput.expert_load`; a copy."""
        ...

    def set_expert_bias(self, bias_LE: Tensor) -> None:
        """Write all routers' biases at once, L x E."""
        ...


class GenerateFn(Protocol):
    """Samples `copies` completions for each of P prompts, the copies of a prompt next to each other (R = P * copies).

    `keys` R x 3 (rollout, prompt, sample) and the position alone decide each draw. `max_new_tokens` None is the sampler's own
    limit.
    """

    def __call__(
        self, prompts: Sequence[Sequence[int]], copies: int, keys: Tensor, max_new_tokens: int | None = None
    ) -> Generation: ...


@dataclass(frozen=True)
class Drafts:
    """How many drafted tokens were put to the model, and how many of them it drew itself."""

    proposed: int = 0
    accepted: int = 0

    def __add__(self, other: Drafts) -> Drafts:
        return Drafts(self.proposed + other.proposed, self.accepted + other.accepted)


@runtime_checkable
class Drafting(Protocol):
    """A `GenerateFn` that drafts: `drafts` are those of its latest call."""

    drafts: Drafts
