"""Attention of packed rows in which documents continue others: a prompt stands there once for all of its completions.

A token of such a document sees the whole of its prefix, then its own document up to itself (`types/tensors.py:TokenBatch`). All
else that a layer does is done per token, so a prompt that G completions share costs a forward and a backward once and not G times,
and the gradients of its G readers add up at its keys and values.

- Short rows have a dense mask, as other rows have (`masked_attention.DenseRows`).
- `ContinuedRows`: each document looks at itself and, in another kernel call, at its prefix (`model/prefix_attention.py`). Memory
  grows with T.
- `VariableLengthRows` with gathered keys, on a GPU in 16 bits: FlashAttention's causal mask is aligned at the last query and the
  last key, which is what is meant. By its documentation; it was not run on a GPU yet.

What cannot work so, a recurrent state or a model of `transformers` with attention of its own, computes the plain layout: `unfolded`
rows, in which each completion has its prompt before it, and `folded` output.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from r1_lightning.functional.masking import document_attention_mask
from r1_lightning.model.masked_attention import (
    DenseRows,
    RowAttention,
    VariableLengthRows,
    document_borders,
    kernels_for,
    repeated,
    row_attention,
    widened,
)
from r1_lightning.model.precision import in_compute_type
from r1_lightning.model.prefix_attention import PrefixAttention, Span, Together, together
from r1_lightning.types.tensors import BackboneOutput, TokenBatch

# Shape legend: B rows, T positions, S all B x T positions, N heads, G key-value heads, H width of queries and keys, U of values,
# M positions of an unfolded row, L layers with experts, K chosen experts, C documents of a kernel call.

# Tokens at the end of a shared prompt that each completion has for itself: the last predicts its first token, and behind the one
# before it an MTP module reads the next.
OWN_PROMPT_TOKENS = 2


def document_spans(document_ids_BT: Tensor, prefix_ids_BT: Tensor) -> list[Span]:
    """All documents in their order, padding in pieces; their lengths add up to S. The host waits for a device once."""
    borders, length = document_borders(document_ids_BT).tolist(), document_ids_BT.shape[1]
    firsts = torch.tensor(borders[:-1], device=document_ids_BT.device)
    named = [ids_BT.flatten()[firsts].tolist() for ids_BT in (document_ids_BT, prefix_ids_BT)]
    places: dict[tuple[int, int], tuple[int, int]] = {}  # by row and document
    spans = []
    for start, end, document, prefix in zip(borders[:-1], borders[1:], *named, strict=True):
        row = start // length
        places[row, document] = (start, end)
        spans.append(Span(start, end, *(places[row, prefix] if prefix else (start, start))))
    return spans


def packed_attention(document_ids_BT: Tensor, prefix_ids_BT: Tensor | None) -> RowAttention:
    """`row_attention`, for rows with or without prefixes."""
    if prefix_ids_BT is None:
        return row_attention(document_ids_BT)
    kernels = kernels_for(document_ids_BT)
    if kernels is DenseRows:
        return dense_rows(document_ids_BT, prefix_ids_BT)
    spans = document_spans(document_ids_BT, prefix_ids_BT)
    if kernels is VariableLengthRows:
        return with_gathered_keys(VariableLengthRows.of(document_ids_BT), spans)
    return ContinuedRows.of(spans, document_ids_BT.device)


def dense_rows(document_ids_BT: Tensor, prefix_ids_BT: Tensor | None) -> DenseRows:
    """One mask for all rows."""
    return DenseRows(in_compute_type(document_attention_mask(document_ids_BT, prefix_ids_BT)))


def with_gathered_keys(rows: VariableLengthRows, spans: Sequence[Span]) -> VariableLengthRows:
    """`rows` whose documents find the keys of their prefixes before their own."""
    device = rows.borders.device
    lengths = torch.tensor([[span.until - span.since + span.end - span.start] for span in spans], device=device)
    places = [torch.arange(*pair, device=device) for span in spans for pair in (span[2:], span[:2])]
    borders = F.pad(lengths.flatten().cumsum(0), (1, 0)).int()
    return replace(rows, keys=torch.cat(places), key_borders=borders, longest_keys=int(lengths.max()))


@dataclass(frozen=True)
class ContinuedRows:
    """`own`: the documents that a kernel takes together as they look at themselves; `shared`: those that look at one prefix."""

    own: tuple[Together, ...]
    shared: tuple[Span, ...]

    compiles: ClassVar[bool] = False

    @classmethod
    def of(cls, spans: Sequence[Span], device: torch.device) -> ContinuedRows:
        lengths = [span.end - span.start for span in spans]
        shared: list[Span] = []
        for span in spans:
            if span.until == span.since:
                continue
            if shared and (shared[-1].end, *shared[-1][2:]) == (span.start, *span[2:]):
                shared[-1] = shared[-1]._replace(end=span.end)
            else:
                shared.append(span)
        return cls(together([span.start for span in spans], lengths, device), tuple(shared))

    def __call__(
        self, q_BTNH: Tensor, k_BTGH: Tensor, v_BTGU: Tensor, scale: float, static_shapes: bool = False
    ) -> Tensor:
        heads = q_BTNH.shape[2]
        wide = widened(q_BTNH, repeated(k_BTGH, heads, 2), repeated(v_BTGU, heads, 2))
        # One type for all three: under autocast `transformers` rotates queries and keys to FP32.
        flat = (in_compute_type(part).flatten(0, 1) for part in wide)
        o_SNH: Tensor = PrefixAttention.apply(*flat, self.own, self.shared, scale)
        return o_SNH.unflatten(0, q_BTNH.shape[:2])[..., : v_BTGU.shape[-1]]


def unfolded(batch: TokenBatch, replayed_LBTK: Tensor | None) -> tuple[TokenBatch, Tensor | None, Tensor]:
    """The plain layout: rows without prefixes, their routes to replay, and the place B x T of each token among the new B x M.

    A prefix is found in front of the first document that continues it. `batch` has `prefix_ids`.
    """
    assert batch.prefix_ids is not None, "there is nothing to unfold"
    rows, length = batch.token_ids.shape
    spans = document_spans(batch.document_ids, batch.prefix_ids)
    continued = {span[2:] for span in spans if span.until > span.since}
    is_token = batch.is_token.flatten().tolist()
    taken: list[list[tuple[int, int]]] = [[] for _ in range(rows)]  # (place, document) of each new position
    for number, span in enumerate(spans, 1):
        if is_token[span.start] and span[:2] not in continued:
            places = (*range(*span[2:]), *range(*span[:2]))
            taken[span.start // length] += [(place, number) for place in places]
    width = max(1, *map(len, taken))
    source = torch.zeros(rows, width, dtype=torch.long)
    document_ids, back = torch.zeros_like(source), torch.zeros(rows * length, dtype=torch.long)
    for row, pairs in enumerate(taken):
        for column, (place, number) in reversed(list(enumerate(pairs))):  # so that the first copy of a prefix stays
            source[row, column], document_ids[row, column], back[place] = place, number, row * width + column
    device = batch.token_ids.device
    source, document_ids, back_BT = source.to(device), document_ids.to(device), back.view(rows, length).to(device)
    token_ids, position_ids = (ids_BT.flatten()[source] for ids_BT in (batch.token_ids, batch.position_ids))
    plain = TokenBatch(token_ids, position_ids * (document_ids > 0), document_ids)
    return plain, None if replayed_LBTK is None else replayed_LBTK.flatten(1, 2)[:, source], back_BT


def folded(output: BackboneOutput, back_BT: Tensor) -> BackboneOutput:
    """Bring the output of `unfolded` rows back into the layout that they came from."""

    def back(numbers_BMD: Tensor) -> Tensor:
        return numbers_BMD.flatten(0, 1)[back_BT]

    routes_LBTK = output.routes.flatten(1, 2)[:, back_BT]
    return replace(output, hidden=back(output.hidden), mtp=tuple(map(back, output.mtp)), routes=routes_LBTK)
