"""Questions and completions as token ids: template, completion, EOS, packed into rows, with a mask for the loss.

Prompt and completion are tokenised apart, as in sampling: no merge of a byte-level tokenizer crosses the border between them, so
the mask is exact, and a completion's first token follows exactly the prompt that sampling gives. A completion is tokenised as a
continuation of text, so it begins with the tokens that it would have in one piece with its prompt.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from r1_lightning.rollout.packing import PackedRows
from r1_lightning.rollout.prompts import Asked, prompt_ids
from r1_lightning.text.chat_template import ChatTemplate
from r1_lightning.text.tokenizer import TextTokenizer
from r1_lightning.types.tensors import ChatBatch
from r1_lightning.types.text import Trace


@dataclass(frozen=True, slots=True)
class ChatRow:
    """One document as token ids: the prompt, and the completion with its EOS."""

    prompt: tuple[int, ...]
    completion: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.completion)


class ChatRows:
    """Many documents in flat arrays, in memory or on disk: four bytes per token, a ninth of lists of Python integers."""

    def __init__(self, rows: Iterable[ChatRow]) -> None:
        ids, prompt_ends, ends = array("i"), array("q"), array("q")
        for row in rows:
            ids.extend(row.prompt)
            prompt_ends.append(len(ids))
            ids.extend(row.completion)
            ends.append(len(ids))
        self._use(*(np.array(values) for values in (ids, prompt_ends, ends)))

    @classmethod
    def of_arrays(cls, ids: Any, prompt_ends: Any, ends: Any, chosen: Any = None) -> ChatRows:
        """Make rows from arrays: `ids` holds all tokens one after the other; `chosen` are the row numbers to keep (None: all)."""
        rows = cls.__new__(cls)
        rows._use(ids, prompt_ends, ends, chosen)
        return rows

    def _use(self, ids: Any, prompt_ends: Any, ends: Any, chosen: Any = None) -> None:
        self.ids, self.prompt_ends, self.ends = ids, prompt_ends, ends
        self.chosen = np.arange(len(ends)) if chosen is None else chosen

    def only(self, chosen: Any) -> ChatRows:
        """Return the rows with the numbers `chosen`, without copying."""
        return ChatRows.of_arrays(self.ids, self.prompt_ends, self.ends, self.chosen[chosen])

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, number: int) -> ChatRow:
        place = int(self.chosen[number])
        start = int(self.ends[place - 1]) if place > 0 else 0
        border, end = int(self.prompt_ends[place]), int(self.ends[place])
        return ChatRow(tuple(self.ids[start:border].tolist()), tuple(self.ids[border:end].tolist()))

    @property
    def tokens(self) -> int:
        """Tokens of all documents."""
        return int(np.diff(self.ends, prepend=0)[self.chosen].sum())

    @property
    def prompt_tokens(self) -> int:
        """Tokens of all prompts; the rest of `tokens` are completions."""
        starts = np.concatenate([[0], self.ends[:-1]]) if len(self.ends) else self.ends
        return int((self.prompt_ends - starts)[self.chosen].sum())


def encode_pairs(
    pairs: Sequence[tuple[str | Asked, str]], tokenizer: TextTokenizer, template: ChatTemplate
) -> list[tuple[list[int], list[int]]]:
    """Return the token ids of each (question, response): the question in its template; the response unchanged, then EOS.

    A question is text, or an object that also holds the earlier turns.
    """
    asked = [Trace(question, "") if isinstance(question, str) else question for question, _ in pairs]
    prompts = prompt_ids(asked, tokenizer, template)
    responses = tokenizer.encode_continuations([response for _, response in pairs])
    end_id = tokenizer.end_id(template) if template.end else tokenizer.eos_id
    return [(prompt, [*response, end_id]) for prompt, response in zip(prompts, responses, strict=True)]


def chat_rows(
    pairs: Sequence[tuple[str | Asked, str]], tokenizer: TextTokenizer, template: ChatTemplate
) -> list[ChatRow]:
    """Return each (question, completion) as token ids, with the completion in the form that the template gives a response."""
    responses = [(question, template.respond(completion)) for question, completion in pairs]
    encoded = encode_pairs(responses, tokenizer, template)
    return [ChatRow(tuple(prompt), tuple(completion)) for prompt, completion in encoded]


def collate_chat(parts: Sequence[Sequence[ChatRow]], part: int, row_tokens: int, pad_id: int) -> ChatBatch:
    """Return micro-batch number `part` of a step with documents `parts`, packed in rows of at most `row_tokens`.

    Empty columns are cut off. The documents of the other micro-batches count only in the denominators. ValueError if a document is
    longer than a row.
    """
    rows = parts[part]
    packed = PackedRows([(*row.prompt, *row.completion) for row in rows], row_tokens, pad_id)
    tokens = packed.trimmed()
    mask = torch.zeros(tokens.token_ids.shape, dtype=torch.bool)
    for row, (line, column) in zip(rows, packed.spans, strict=True):
        mask[line, column + len(row.prompt) : column + len(row)] = True
    return ChatBatch(
        tokens=tokens,
        completion_mask=mask,
        step_lengths=torch.tensor([[len(row.prompt), len(row)] for step_rows in parts for row in step_rows]),
    )
