"""The form of a reasoned answer: `<think> ... </think> <answer> ... </answer>`, once, and nothing else.

DeepSeek-R1 rewards the form separately from the content (section 2.2, equation 4). The paper describes it in one
sentence, so the rule is ours and it is strict, because every gap in it is something that training will find: an empty
answer, two answers of which one is right, text after the last tag, a tag inside another. `parse` says *which* rule is
broken, so that a person reading samples sees what the model does, and so that a reward may be graded.

A well-formed completion is: optional white space, exactly one think block, optional white space, exactly one answer
block, optional white space. Both bodies hold at least one visible character and no tag. Zero-width characters are not
visible.

The scan looks for four fixed strings and never backtracks: its time is linear in the length of the text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"
ANSWER_OPEN, ANSWER_CLOSE = "<answer>", "</answer>"
TAGS = (THINK_OPEN, THINK_CLOSE, ANSWER_OPEN, ANSWER_CLOSE)

# Every fault that `parse` can report, with what it means to a person.
FAULTS = {
    "missing_think": "no think tag at all",
    "unopened_think": "</think> without <think>",
    "unclosed_think": "<think> without </think>",
    "several_think": "more than one think block",
    "empty_think": "nothing visible between the think tags",
    "missing_answer": "no answer tag at all",
    "unopened_answer": "</answer> without <answer>",
    "unclosed_answer": "<answer> without </answer>",
    "several_answer": "more than one answer block",
    "empty_answer": "nothing visible between the answer tags",
    "nested": "a tag inside another block",
    "wrong_order": "a block closes before it opens, or the answer comes before the thinking",
    "text_outside": "text before, between or after the blocks",
}

_TAG = re.compile("|".join(map(re.escape, TAGS)))


@dataclass(frozen=True, slots=True)
class ParsedReasoning:
    """What `parse` found.

    `think` and `answer` are the bodies as written, white space included. A body is given where its block stands exactly
    once, closed, with no tag inside and not inside another block, even if other rules are broken; otherwise None.
    `faults` are keys of `FAULTS`, without repetition.
    """

    think: str | None
    answer: str | None
    faults: tuple[str, ...]

    @property
    def well_formed(self) -> bool:
        return not self.faults


@dataclass(frozen=True, slots=True)
class _Block:
    """Where one kind of block stands: the span of its body, or the faults that deny it one."""

    start: int = -1
    end: int = -1
    faults: tuple[str, ...] = ()

    @property
    def exists(self) -> bool:
        return self.start >= 0


def reasoned(thinking: str, answer: object) -> str:
    """A well-formed completion, as it follows a prompt: after a space."""
    return f" {THINK_OPEN}{thinking}{THINK_CLOSE}{ANSWER_OPEN}{answer}{ANSWER_CLOSE}"


def has_visible_text(text: str) -> bool:
    """True if any character of `text` would show on paper: not white space, not a control or zero-width character."""
    return any(not character.isspace() and character.isprintable() for character in text)


def parse(text: str, allow_empty_think: bool = False) -> ParsedReasoning:
    """Take a completion apart and list every rule of the format that it breaks.

    By default an empty think block is a fault: a model that may leave it empty learns to answer without thinking while
    it keeps the format reward. `allow_empty_think=True` accepts it, for answers made by a template that forces one.
    """
    tags = [(match.group(), match.start(), match.end()) for match in _TAG.finditer(text)]
    think, answer = _find_block(tags, "think"), _find_block(tags, "answer")
    faults = [*think.faults, *answer.faults]
    think_body = text[think.start : think.end] if think.exists else None
    answer_body = text[answer.start : answer.end] if answer.exists else None
    if think.exists and answer.exists and answer.start < think.start:
        faults.append("wrong_order")
    if _has_nested_tag(think, tags):
        faults.append("nested")
        think_body = None
        answer_body = answer_body if not think.start < answer.start < think.end else None
    if _has_nested_tag(answer, tags):
        faults.append("nested")
        answer_body = None
        think_body = think_body if not answer.start < think.start < answer.end else None
    if think_body is not None and not allow_empty_think and not has_visible_text(think_body):
        faults.append("empty_think")
    if answer_body is not None and not has_visible_text(answer_body):
        faults.append("empty_answer")
    if _has_text_outside(text, tags):
        faults.append("text_outside")
    return ParsedReasoning(think_body, answer_body, tuple(dict.fromkeys(faults)))


def _find_block(tags: list[tuple[str, int, int]], kind: str) -> _Block:
    opens = [end for tag, _, end in tags if tag == f"<{kind}>"]
    closes = [start for tag, start, _ in tags if tag == f"</{kind}>"]
    if not opens and not closes:
        return _Block(faults=(f"missing_{kind}",))
    if len(opens) > 1 or len(closes) > 1:
        return _Block(faults=(f"several_{kind}",))
    if not opens:
        return _Block(faults=(f"unopened_{kind}",))
    if not closes:
        return _Block(faults=(f"unclosed_{kind}",))
    if closes[0] < opens[0]:
        return _Block(faults=("wrong_order",))
    return _Block(opens[0], closes[0])


def _has_nested_tag(block: _Block, tags: list[tuple[str, int, int]]) -> bool:
    return block.exists and any(block.start <= start < block.end for _, start, _ in tags)


def _has_text_outside(text: str, tags: list[tuple[str, int, int]]) -> bool:
    """True if there is visible text that no opening tag stands directly before."""
    position, outside = 0, True
    for tag, start, end in tags:
        if outside and has_visible_text(text[position:start]):
            return True
        position, outside = end, tag.startswith("</")
    return outside and has_visible_text(text[position:])
