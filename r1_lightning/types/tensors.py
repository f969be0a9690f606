"""Values that cross layers as tensors, and the Protocols of the parts that exchange them.

One layout serves pre-training and RL alike: **packed rows**. A row of T tokens holds several documents one after the
other; `document_ids` says which token belongs to which (0 is padding), positions restart at every border, and attention
never crosses one. So no compute is spent on padding a short completion to the length of a long one.

Shape legend: B rows, T positions, V vocabulary, D model width, E routed experts, L layers with experts, S sequences
(completions) in a minibatch, R rows being sampled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from r1_lightning.types.movable import Movable
from r1_lightning.types.value_targets import ValueTargets


@dataclass(frozen=True)
class TokenBatch(Movable):
    """Packed token rows.

    token_ids B x T; position_ids B x T, restarting at 0 in every document; document_ids B x T, 1, 2, ... within a row
    and 0 for padding.

    G completions may share their prompt: documents that continue another one of their row, the prefix, see all of it, and their
    positions go on behind it. `prefix_ids` B x T holds the document that each token's document continues, 0 if none; it is None if
    none does. A prefix continues nothing itself, and comes directly before the first document that continues it.
    """

    token_ids: Tensor
    position_ids: Tensor
    document_ids: Tensor
    prefix_ids: Tensor | None = None

    @classmethod
    def of_whole_rows(cls, token_ids: Tensor) -> TokenBatch:
        """One document per row and no padding; `token_ids` B x T."""
        positions = torch.arange(token_ids.shape[1], device=token_ids.device).expand_as(token_ids)
        return cls(token_ids, positions, torch.ones_like(token_ids))

    @property
    def is_token(self) -> Tensor:
        """B x T, True where there is a token and not padding."""
        return self.document_ids > 0

    def map(self, change: Callable[[Tensor], Tensor]) -> Self:
        """Return the fields that are there, each changed in the same way."""
        named = {item.name: getattr(self, item.name) for item in fields(self)}
        return replace(self, **{name: change(tensor) for name, tensor in named.items() if tensor is not None})


# Slices of weights that a checkpoint stores in one tensor, side by side along its last dimension.
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
class GRPOBatch(Movable):
    """One minibatch of completions in packed rows.

    Each B x T field describes the token at the same position of `tokens`. `old_logprobs[b, t]` is the log-prob of token t under
    the policy that sampled it (nats, of softmax(logits / sampling_temperature)). `completion_mask` is True
    on completion tokens, EOS included. `sequence_ids` maps each token to its sequence, 0 .. S - 1 (-1 on padding and prefixes).
    `advantages` (B x T) are 0 outside of completions. `completion_tokens` is per sequence (S); `n_sequences` and `n_tokens`
    count the sequences and the completion tokens of the whole minibatch, over all micro-batches and processes: the
    denominators of means.
    `policy_version` counts the optimizer steps that the sampling policy had taken. `routes` L x B x T x K are the experts that the
    sampler chose at each position, -1 where unknown; None if training does not replay them. `targets` are PPO's, with fields B x T.
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
    targets: ValueTargets | None = None


@dataclass(frozen=True)
class ChatBatch(Movable):
    """Questions with their completions as documents of packed rows, for supervised fine-tuning.

    `completion_mask` B x T is True on completion tokens, EOS included. `step_lengths` S x 2 holds (prompt tokens, all tokens) of
    each document of the optimizer step, over all of its micro-batches: the denominators of means come from it.
    """

    tokens: TokenBatch
    completion_mask: Tensor
    step_lengths: Tensor

    def n_targets(self, places: int) -> Tensor:
        """Count the step's completion tokens whose position in their document is at least `places` (a scalar)."""
        prompt_S, whole_S = self.step_lengths.unbind(1)
        return (whole_S - prompt_S.clamp(min=places)).clamp(min=0).sum()


@dataclass(frozen=True)
class PreferenceBatch(Movable):
    """S prompts with their responses as documents of packed rows, for a reward model or DPO.

    `sequence_ids` B x T is -1 outside of responses, else which response, 0 .. S - 1, a token belongs to, EOS included. `ends` S is
    the flat index (row * T + column) of each document's last token, EOS, where a score is read; `labels` S is 1.0 for a good
    response, else 0.0. If `is_paired`, sequences 2i and 2i + 1 answer the same question, the chosen one first.
    """

    tokens: TokenBatch
    sequence_ids: Tensor
    ends: Tensor
    labels: Tensor
    is_paired: bool

    @property
    def completion_mask(self) -> Tensor:
        return self.sequence_ids >= 0


@dataclass(frozen=True)
class DistillBatch(Movable):
    """Text on which a student learns its teacher's distribution, in packed rows.

    `target_mask` B x T is True at the C tokens to predict; never at a document's first token, which has no context.
    `n_tokens` counts the target tokens of the whole optimizer step, over all micro-batches: the denominator of means.
    `is_on_policy` is True if the student sampled the text itself. `top_ids` C x K and `top_logprobs` C x (K + 1) (C x K if K is the
    vocabulary) come from a cache of the teacher, in row order: its K likeliest tokens with their log-probs, then the log-prob of
    all other tokens together (`functional.distillation.lumped`); None if the teacher model itself computes them.
    """

    tokens: TokenBatch
    target_mask: Tensor
    n_tokens: int
    is_on_policy: bool = False
    top_ids: Tensor | None = None
    top_logprobs: Tensor | None = None


@dataclass(frozen=True)
class Generation(Movable):
    """Completions of R rows, right-padded to the longest.

    completion_ids R x T; completion_mask R x T, EOS included; policy_logprobs R x T, of softmax(logits /
    sampling_temperature); sampler_logprobs R x T, of the distribution actually drawn from (top-p renormalises it);
    finished R, True if EOS ended the row. routes L x R x T x K: the experts chosen at the position that predicted each token;
    prompt_routes L x R x Tp x K: the experts of the prompt tokens except the last, which predicts the first completion token
    (left-padded with -1). Both are empty unless the sampler records routes.
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
    """Past keys and values of the rows being sampled: `room` columns are free, and `grow(n)` makes n free."""

    @property
    def bytes(self) -> int: ...

    @property
    def room(self) -> int: ...

    def grow(self, columns: int) -> None: ...

    def select_rows(self, rows: Tensor) -> None:
        """Keep only `rows` (indices, repeats allowed: a prompt's row serves its whole group)."""
        ...


@runtime_checkable
class Backbone(Protocol):
    """The interface of a language model for sampling and scoring; our backbone and the HuggingFace adapter implement it."""

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
        """Map the R x T newest tokens (left-padded; `is_token` R x T) to normed hidden R x T x D, and keep them in `cache`."""
        ...


@runtime_checkable
class DraftingBackbone(Backbone, Protocol):
    """A `Backbone` whose first MTP module drafts (V3 section 5.4.3); caches also have `forget_newest` and `close_gaps`."""

    @property
    def mtp_depth(self) -> int:
        """The number of MTP modules; 0 means that nothing can be drafted."""
        ...

    def new_mtp_cache(self, rows: int, max_tokens: int) -> LatentCache: ...

    def step_mtp(self, hidden: Tensor, next_ids: Tensor, is_token: Tensor, cache: Any) -> Tensor:
        """Map `step`'s hidden R x T x D and the tokens R x T one position later to hidden R x T x D for `unembed`."""
        ...


@runtime_checkable
class Balanced(Protocol):
    """A `Backbone` whose experts are balanced by routing biases, which the training stages update (V3 section 2.1.2).

    A dense model has no experts: its `expert_bias` is empty (L = 0) and setting it does nothing.
    """

    def expert_bias(self) -> Tensor:
        """All routers' biases, L x E, FP32, in the order of `BackboneOutput.expert_load`; a copy."""
        ...

    def set_expert_bias(self, bias_LE: Tensor) -> None:
        """Write all routers' biases at once, L x E."""
        ...


class GenerateFn(Protocol):
    """Samples `copies` completions for each of P prompts (R = P * copies); the completions of one prompt are adjacent rows.

    Each random draw depends only on the row's `keys` R x 3 (rollout, prompt, sample) and the position. `max_new_tokens=None` means
    the sampler's own limit. P may be 0: a process has no prompt where there are fewer than processes.
    """

    def __call__(
        self, prompts: Sequence[Sequence[int]], copies: int, keys: Tensor, max_new_tokens: int | None = None
    ) -> Generation: ...


@dataclass(frozen=True)
class Drafts:
    """Counts of speculative decoding: tokens `proposed` by the draft, and of these the tokens `accepted` by the model."""

    proposed: int = 0
    accepted: int = 0

    def __add__(self, other: Drafts) -> Drafts:
        return Drafts(self.proposed + other.proposed, self.accepted + other.accepted)


@runtime_checkable
class Drafting(Protocol):
    """A `GenerateFn` with speculative decoding; `drafts` holds the counts of its latest call."""

    drafts: Drafts
