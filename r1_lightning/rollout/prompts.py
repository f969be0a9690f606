"""Prompts: a problem's question in the template, after its earlier turns, as token ids.

In our templates every turn is tokenised apart, as in sampling, where the model continues the text: each reply ends with EOS, and a
BOS token stands only at the beginning of the prompt. A checkpoint's own template writes the whole conversation, and a system
message in the place that it has for one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from r1_lightning.text.chat_template import ChatTemplate, without_system
from r1_lightning.text.checkpoint_template import CheckpointTemplate
from r1_lightning.text.tokenizer import TextTokenizer


class Asked(Protocol):
    """A question with its earlier turns: a `Problem`, a `ChatExample`, a `Trace`."""

    @property
    def question(self) -> str: ...

    @property
    def earlier(self) -> Sequence[tuple[str, str]]: ...


def prompt_ids(
    asked: Sequence[Asked], tokenizer: TextTokenizer, template: ChatTemplate, forced_prefix: str = ""
) -> list[list[int]]:
    """Return the prompt of each of `asked`; `forced_prefix` is appended to its text."""
    if isinstance(template, CheckpointTemplate):
        return tokenizer.encode_pieces([_conversation(item, template) for item in asked], forced_prefix, begins=False)
    last = tokenizer.encode_prompts(template, [item.question for item in asked], forced_prefix)
    if not any(item.earlier for item in asked):
        return last
    plain = replace(template, instruction="")  # which belongs to the last question
    questions = iter(tokenizer.encode_prompts(plain, [q for item in asked for q, _ in item.earlier]))
    replies = iter(
        tokenizer.encode_continuations([template.respond(reply) for item in asked for _, reply in item.earlier])
    )
    found = []
    for item, prompt in zip(asked, last, strict=True):
        turns = [[*next(questions), *next(replies), tokenizer.eos_id] for _ in item.earlier]
        found.append(_joined([*turns, prompt], tokenizer))
    return found


def _conversation(item: Asked, template: CheckpointTemplate) -> tuple[str, ...]:
    """Return the pieces of a conversation; a system message that a task put before the first question is one again."""
    system = str(getattr(item, "metadata", {}).get("system", "")).strip()
    first, *others = [*item.earlier, (item.question, "")]
    asked = without_system(system, first[0])
    if asked is None:
        return template.conversation(item.question, item.earlier)
    turns = [(asked, first[1]), *others]
    return template.conversation(turns[-1][0], turns[:-1], system)


def _joined(pieces: Sequence[list[int]], tokenizer: TextTokenizer) -> list[int]:
    """Concatenate the turns; BOS stays before the first only."""
    first, *others = pieces
    begun = 1 if tokenizer.begins_with_bos else 0
    return [*first, *(token for piece in others for token in piece[begun:])]
