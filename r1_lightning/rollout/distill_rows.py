"""A student's text as token ids and packed rows: pre-training documents, or questions with a teacher's completion.

The loss covers every token of a document but the first, which nothing predicts; all tokens and the EOS of a completion; and no
token of a question.
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
    """Token ids with their targets: token number `first_target` (at least 1) and all after it."""

    ids: tuple[int, ...]
    first_target: int = 1

    @property
    def n_targets(self) -> int:
        return max(0, len(self.ids) - self.first_target)


def document_rows(texts: Sequence[str], tokenizer: TextTokenizer, row_tokens: int) -> list[DistillRow]:
    """Return each text with its EOS, cut into pieces of at most `row_tokens`."""
    encoded = [[*ids, tokenizer.eos_id] for ids in tokenizer.encode_batch(texts)]
    return [DistillRow(tuple(piece)) for piece in cut_long(encoded, row_tokens)]


def trace_rows(traces: Sequence[Trace], tokenizer: TextTokenizer, template: ChatTemplate) -> list[DistillRow]:
    """Return each trace as in fine-tuning and sampling: the question in its template, the completion after one space, EOS."""
    rows = chat_rows([(trace, trace.completion) for trace in traces], tokenizer, template)
    return [DistillRow((*row.prompt, *row.completion), len(row.prompt)) for row in rows]


def collate_distill(
    rows: Sequence[DistillRow], row_tokens: int, pad_id: int, n_tokens: int, is_on_policy: bool = False
) -> DistillBatch:
    """Pack `rows` into rows of at most `row_tokens`, without empty columns. ValueError if one of `rows` is longer.

    `n_tokens` is the number of targets of the whole optimizer step.
    """
    packed = PackedRows([row.ids for row in rows], row_tokens, pad_id)
    tokens = packed.trimmed()
    mask = torch.zeros(tokens.token_ids.shape, dtype=torch.bool)
    for row, (line, column) in zip(rows, packed.spans, strict=True):
        mask[line, column + row.first_target : column + len(row.ids)] = True
    return DistillBatch(tokens, mask, n_tokens, is_on_policy)
