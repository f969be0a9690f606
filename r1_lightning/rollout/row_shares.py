"""The packed rows that one of several processes computes, of a batch that all of them have made.

A batch follows from seed, step and rollout, so every process makes the whole of it and takes its rows: the documents of a row, and
the denominators that the batch carries, are those of one process, so losses over the shares add up to its loss. Making a batch is
cheap; forward and backward are what is shared.

A row keeps its width: what an MTP module sees behind a row's last token is the padding there.

A process without a row gets one position of padding: it adds nothing to loss, metrics and expert load, but its forward makes the
same tensors as any other, so that it takes part in every collective call with a gradient for every parameter.
"""

from __future__ import annotations

from dataclasses import replace
from functools import singledispatch
from typing import Any, TypeVar

import torch
from torch import Tensor

from r1_lightning.rollout.collate import padding
from r1_lightning.types.processes import Processes
from r1_lightning.types.tensors import ChatBatch, DistillBatch, GRPOBatch, TokenBatch

Batch = TypeVar("Batch", TokenBatch, ChatBatch, DistillBatch, GRPOBatch)


def share_of_rows(batch: Batch, processes: Processes) -> Batch:
    """Return this process's rows of `batch`, or a position of padding if it has none; the denominators stay the batch's."""
    tokens = batch if isinstance(batch, TokenBatch) else batch.tokens
    rows = processes.share(range(len(tokens.token_ids)))
    found: Batch = _taken(batch, torch.tensor(rows, dtype=torch.long))
    return found


@singledispatch
def _taken(batch: Any, rows: Tensor) -> Any:
    """Return the chosen rows of a batch of any kind."""
    raise TypeError(f"{type(batch).__name__} has no packed rows to share")


@_taken.register
def _(batch: TokenBatch, rows: Tensor) -> TokenBatch:
    if not len(rows):
        nothing = torch.zeros((1, 1), dtype=torch.long)
        return TokenBatch(batch.token_ids[:1, :1], position_ids=nothing, document_ids=nothing)
    return batch.map(lambda ids_BT: ids_BT[rows])


@_taken.register
def _(batch: ChatBatch, rows: Tensor) -> ChatBatch:
    return replace(batch, tokens=_taken(batch.tokens, rows), completion_mask=_mask(batch.completion_mask, rows))


@_taken.register
def _(batch: DistillBatch, rows: Tensor) -> DistillBatch:
    # What a cache has filled in is by target, in row order.
    is_own = torch.isin(batch.target_mask.nonzero()[:, 0], rows)
    return replace(
        batch,
        tokens=_taken(batch.tokens, rows),
        target_mask=_mask(batch.target_mask, rows),
        top_ids=None if batch.top_ids is None else batch.top_ids[is_own],
        top_logprobs=None if batch.top_logprobs is None else batch.top_logprobs[is_own],
    )


@_taken.register
def _(batch: GRPOBatch, rows: Tensor) -> GRPOBatch:
    if not len(rows):
        return padding(batch)
    names = ("completion_mask", "old_logprobs", "sampler_logprobs", "sequence_ids", "advantages")
    return replace(
        batch,
        **{name: getattr(batch, name)[rows] for name in names},
        tokens=_taken(batch.tokens, rows),
        routes=None if batch.routes is None else batch.routes[:, rows],
        targets=batch.targets and batch.targets.map(lambda numbers_BT: numbers_BT[rows]),
    )


def _mask(mask_BT: Tensor, rows: Tensor) -> Tensor:
    return mask_BT[rows] if len(rows) else torch.zeros((1, 1), dtype=torch.bool)
