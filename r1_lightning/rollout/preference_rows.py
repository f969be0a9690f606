"""Questions and responses as token ids for a reward model, in training and in RL, and for DPO: template, response, EOS.

One function makes the token ids for both, so the model scores texts in exactly the form that it was trained on. Every response
gets an EOS, also one that the length limit cut off, because the score is read there. The part `COMPLETION` is for a policy: the
whole response in the form in which the template has it written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from r1_lightning.rollout.chat_rows import encode_pairs
from r1_lightning.rollout.packing import PackedRows
from r1_lightning.text.chat_template import ChatTemplate
from r1_lightning.text.response_parts import PARTS, part_of
from r1_lightning.text.tokenizer import TextTokenizer
from r1_lightning.types.processes import Processes
from r1_lightning.types.tensors import PreferenceBatch, TokenBatch
from r1_lightning.types.text import Preference, PreferenceItem

COMPLETION = "completion"
TRAINED_PARTS = (*PARTS, COMPLETION)


@dataclass(frozen=True, slots=True)
class PreferenceRow:
    """An item as token ids: a pair's chosen and rejected documents, or a single one; `labels` are 1.0 for good, else 0.0.

    Each document begins with the same `prompt_tokens` tokens of the question.
    """

    documents: tuple[tuple[int, ...], ...]
    labels: tuple[float, ...]
    prompt_tokens: int = 0

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
    """Return each item as token ids, with the `part` of its responses that is scored or learned; None if one lacks that part."""
    responses: list[tuple[str, str]] = []
    shapes: list[int] = []
    for item in items:
        is_pair = isinstance(item, Preference)
        texts = (item.chosen, item.rejected) if isinstance(item, Preference) else (item.response,)
        parts = [found for text in texts if (found := _part(text, part, template)) is not None]
        shapes.append(len(parts) if len(parts) == 1 + is_pair else 0)
        if shapes[-1]:
            responses += [(item.question, text) for text in parts]
    encoded = iter(encode_pairs(responses, tokenizer, template))
    rows: list[PreferenceRow | None] = []
    for item, size in zip(items, shapes, strict=True):
        pieces = [next(encoded) for _ in range(size)]
        documents = tuple((*prompt, *response) for prompt, response in pieces)
        labels = (1.0, 0.0) if isinstance(item, Preference) else (float(item.is_good),)
        rows.append(PreferenceRow(documents, labels, len(pieces[0][0])) if size else None)
    return rows


def _part(text: str, part: str, template: ChatTemplate) -> str | None:
    if part != COMPLETION:
        return part_of(text, part)
    return None if part_of(text, "whole") is None else template.respond(text)


def collate_preferences(rows: Sequence[PreferenceRow], row_tokens: int, pad_id: int) -> PreferenceBatch:
    """Pack `rows` into rows of at most `row_tokens`, without empty columns. ValueError if a document is longer."""
    documents = [document for row in rows for document in row.documents]
    packed = PackedRows(documents, row_tokens, pad_id)
    tokens = packed.trimmed()
    used = tokens.token_ids.shape[1]
    ends = [line * used + column + len(d) - 1 for (line, column), d in zip(packed.spans, documents, strict=True)]
    sequence_ids = torch.full_like(tokens.token_ids, -1)
    # Nothing predicts a document's first token, so no response holds it.
    starts = [max(row.prompt_tokens, 1) for row in rows for _ in row.documents]
    for number, ((line, column), document) in enumerate(zip(packed.spans, documents, strict=True)):
        sequence_ids[line, column + starts[number] : column + len(document)] = number
    return PreferenceBatch(
        tokens=tokens,
        sequence_ids=sequence_ids,
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
    empty = torch.zeros(0, dtype=torch.long)
    is_paired = len(rows[0].documents) == 2
    return PreferenceBatch(tokens, nothing - 1, ends=empty, labels=torch.zeros(0), is_paired=is_paired)
