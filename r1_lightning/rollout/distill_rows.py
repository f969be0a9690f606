"""Text that a student learns, as token ids and as packed rows: pre-training documents, or questions with a teacher's completion.

Of a document every token but the first is learned (nothing stands before that one), of a completion all tokens and the EOS, of a
question none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from r1_lightning.rollout.chat_rows import chat_rows
from r1_lightning.rollout.packing import PackedRows, cut_long
from r1_lightning.text.chat_template import ChatTemplate
from r1_lightning.text.tokenizer import TextTokenizer
from r1_lightning.types.tensors import DistillBatch
from r1_lightning.types.text import Trace


@dataclass(frozen=True, slots=True)
class DistillRow:
    """Token ids, of which number `first_target` (at least 1) and all after it are learned."""

    ids: tuple[int, ...]
    first_target: int = 1

    @property
    def n_targets(self) -> int:
        return max(0, len(self.ids) - self.first_target)


def document_rows(texts: Sequence[str], tokenizer: TextTokenizer, row_tokens: int) -> list[DistillRow]:
    """Each text with its EOS, in pieces of at most `row_tokens`."""
    encoded = [[*ids, tokenizer.eos_id] for ids in tokenizer.encode_batch(texts)]
    return [DistillRow(tuple(piece)) for piece in cut_long(encoded, row_tokens)]


def trace_rows(traces: Sequence[Trace], tokenizer: TextTokenizer, template: ChatTemplate) -> list[DistillRow]:
    """Each trace as fine-tuning and sampling have it: the question in its template, the completion after one space, EOS."""
    rows = chat_rows([(trace, trace.completion) for trace in traces], tokenizer, template)
    return [DistillRow((*row.prompt, *row.completion), len(row.prompt)) for row in rows]


def collate_distill(
    rows: Sequence[DistillRow], row_tokens: int, pad_id: int, n_tokens: int, is_on_policy: bool = False
) -> DistillBatch:
    """`rows` packed into rows of at most `row_tokens`, and cut to what is used. ValueError where one is longer.

    `n_tokens` are those learned in the whole optimizer step.
    """
    packed = PackedRows([row.ids for row in rows], row_tokens, pad_id)
    tokens = packed.trimmed()
    mask = torch.zeros(tokens.token_ids.shape, dtype=torch.bool)
    for row, (line, column) in zip(rows, packed.spans, strict=True):
        mask[line, column + row.first_target : column + len(row.ids)] = True
    return DistillBatch(tokens, mask, n_tokens, is_on_policy)
