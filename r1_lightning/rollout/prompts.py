"""A problem as the token ids that a model is asked with: its question in the template, after the turns that came before it.

Every piece is tokenised apart, as it is where a model goes on writing: each reply ends with EOS, and a token that begins texts
stands once, before everything.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from r1_lightning.text.chat_template import ChatTemplate
from r1_lightning.text.tokenizer import TextTokenizer


class Asked(Protocol):
    """A question, and the turns before it: a `Problem`, a `ChatExample`, a `Trace`."""

    @property
    def question(self) -> str: ...

    @property
    def earlier(self) -> Sequence[tuple[str, str]]: ...


def prompt_ids(
    asked: Sequence[Asked], tokenizer: TextTokenizer, template: ChatTemplate, forced_prefix: str = ""
) -> list[list[int]]:
    """The prompt of each of `asked`; `forced_prefix` is put after it as a part of its text."""
    last = tokenizer.encode_prompts(template, [item.question for item in asked], forced_prefix)
    if not any(item.earlier for item in asked):
        return last
    questions = iter(tokenizer.encode_prompts(template, [q for item in asked for q, _ in item.earlier]))
    replies = iter(
        tokenizer.encode_continuations([template.respond(reply) for item in asked for _, reply in item.earlier])
    )
    found = []
    for item, prompt in zip(asked, last, strict=True):
        turns = [[*next(questions), *next(replies), tokenizer.eos_id] for _ in item.earlier]
        found.append(_joined([*turns, prompt], tokenizer))
    return found


def _joined(pieces: Sequence[list[int]], tokenizer: TextTokenizer) -> list[int]:
    """One turn after the other; what begins a text stands before the first only."""
    first, *others = pieces
    begun = 1 if tokenizer.begins_with_bos else 0
    return [*first, *(token for piece in others for token in piece[begun:])]
