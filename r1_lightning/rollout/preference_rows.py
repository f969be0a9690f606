"""Questions and responses as token ids for a reward model, in training and in RL: template, response, EOS.

One function makes the token ids for both, so the model scores texts in exactly the form that it was trained on. Every response
gets an EOS, also one that the length limit cut off, because the score is read there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from r1_lightning.rollout.chat_rows import encode_pairs
from r1_lightning.rollout.packing import PackedRows
from r1_lightning.text.chat_template import ChatTemplate
from r1_lightning.text.response_parts import part_of
from r1_lightning.text.tokenizer import TextTokenizer
from r1_lightning.types.processes import Processes
from r1_lightning.types.tensors import PreferenceBatch, TokenBatch
from r1_lightning.types.text import Preference, PreferenceItem


@dataclass(frozen=True, slots=True)
class PreferenceRow:
    """An item as token ids: a pair's chosen and rejected documents, or a single one; `labels` are 1.0 for good, else 0.0."""

    documents: tuple[tuple[int, ...], ...]
    labels: tuple[float, ...]

    @property
    def longest(self) -> int:
        """Tokens of the longest document, prompt and EOS included."""
        return max(map(len, self.documents))


def encode_responses(
    pairs: Sequence[tuple[str, str]], tokenizer: TextTokenizer, template: ChatTemplate
) -> list[list[int]]:
    """Return the token ids of each (question, response): the question in its template, the response unchanged, EOS."""
    return [[*prompt, *response] for prompt, response in encode_pairs(pairs, tokenizer, template)]


def preference_rows(
    items: Sequence[PreferenceItem], tokenizer: TextTokenizer, template: ChatTemplate, part: str
) -> list[PreferenceRow | None]:
    """Return each item as token ids, with the scored `part` of its responses; None if a response lacks that part."""
    responses: list[tuple[str, str]] = []
    shapes: list[int] = []
    for item in items:
        is_pair = isinstance(item, Preference)
        texts = (item.chosen, item.rejected) if isinstance(item, Preference) else (item.response,)
        parts = [found for text in texts if (found := part_of(text, part)) is not None]
        shapes.append(len(parts) if len(parts) == 1 + is_pair else 0)
        if shapes[-1]:
            responses += [(item.question, text) for text in parts]
    ids = iter(encode_responses(responses, tokenizer, template))
    rows: list[PreferenceRow | None] = []
    for item, size in zip(items, shapes, strict=True):
        documents = tuple(tuple(next(ids)) for _ in range(size))
        labels = (1.0, 0.0) if isinstance(item, Preference) else (float(item.is_good),)
        rows.append(PreferenceRow(documents, labels) if size else None)
    return rows


def collate_preferences(rows: Sequence[PreferenceRow], row_tokens: int, pad_id: int) -> PreferenceBatch:
    """Pack `rows` into rows of at most `row_tokens`, without empty columns. ValueError if a document is longer."""
    documents = [document for row in rows for document in row.documents]
    packed = PackedRows(documents, row_tokens, pad_id)
    tokens = packed.trimmed()
    used = tokens.token_ids.shape[1]
    ends = [line * used + column + len(d) - 1 for (line, column), d in zip(packed.spans, documents, strict=True)]
    return PreferenceBatch(
        tokens=tokens,
        ends=torch.tensor(ends),
        labels=torch.tensor([label for row in rows for label in row.labels]),
        is_paired=len(rows[0].documents) == 2,
    )


def collate_share(rows: Sequence[PreferenceRow], processes: Processes, row_tokens: int, pad_id: int) -> PreferenceBatch:
    """Pack this process's share of `rows`: by item and not by packed row, because a loss needs both responses of a pair.

    A process without an item gets one position of padding and no sequence: it has a part of 0 in loss, metrics and expert load.
    """
    own = processes.share(rows)
    if own:
        return collate_preferences(own, row_tokens, pad_id)
    nothing = torch.zeros((1, 1), dtype=torch.long)
    tokens = TokenBatch(torch.full((1, 1), pad_id), position_ids=nothing, document_ids=nothing)
    is_paired = len(rows[0].documents) == 2
    return PreferenceBatch(tokens, ends=torch.zeros(0, dtype=torch.long), labels=torch.zeros(0), is_paired=is_paired)
