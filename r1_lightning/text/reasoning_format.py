"""Parses the format of a completion: R1-Zero's, with an answer block, or R1's, with a summary.

    r1_zero   <think> ... </think> <answer> ... </answer>     once, and nothing else
    r1        <think> ... </think> a summary without tags     written by a cold-started model (R1v1 section 2.3.1)

Two more are for prompts that open the think block, as R1's published template does: r1_zero_opened, r1_opened. Their completions
begin inside the thinking, without `<think>`.

`FORMS` holds all four; the template, the rewards and the metrics of a run use the same one.

DeepSeek-R1 rewards the format separately from the content (section 2.2, equation 4). The paper describes it in one sentence, so the
rules are ours. They are strict, because training exploits every gap: an empty answer, two answers of which one is right, text after
the last tag, a tag inside another. `parse` reports *which* rule is broken, so that a person who reads samples sees what the model
does, and so that a reward may be graded.

A well-formed completion of R1-Zero is: optional white space, exactly one think block, optional white space, exactly one answer
block, optional white space. Both bodies contain at least one visible character and no tag, except that the thinking may mention
tags by the rules of `text.named_tags`. Zero-width characters are not visible.

In R1's form a summary replaces the answer block: all text after the thinking, visible and without tags. The paper writes
|special_token|<reasoning_process>|special_token|<summary> and defines no place for the answer. Ours is the summary's last box, as
B.3.1 asks for; a one-line summary without a box is itself the answer, a longer one without a box has none.

The scan looks for four fixed strings and never backtracks, so its time is linear in the length of the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from r1_lightning.text.boxed import BOXED, last_boxed
from r1_lightning.text.named_tags import Tag, real_tags

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"
ANSWER_OPEN, ANSWER_CLOSE = "<answer>", "</answer>"
TAGS = (THINK_OPEN, THINK_CLOSE, ANSWER_OPEN, ANSWER_CLOSE)

FormName = Literal["r1_zero", "r1", "r1_zero_opened", "r1_opened"]
R1_ZERO_FORM: FormName = "r1_zero"
R1_FORM: FormName = "r1"
R1_ZERO_OPENED_FORM: FormName = "r1_zero_opened"
R1_OPENED_FORM: FormName = "r1_opened"
WRITTEN_FORMS = (R1_ZERO_FORM, R1_FORM)  # formats of texts that are stored without a prompt

# Every fault that `parse` can report, with an explanation for people.
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

# The same for `parse_r1`.
_OF_THINKING = ("missing_think", "unopened_think", "unclosed_think", "several_think", "empty_think")
R1_FAULTS = {
    **{fault: FAULTS[fault] for fault in _OF_THINKING},
    "nested": "a tag inside the think block",
    "wrong_order": "the think block closes before it opens",
    "missing_summary": "nothing visible after the think block",
    "tag_in_summary": "a tag in the summary",
    "text_outside": "text before the think block",
}

_TAG = re.compile("|".join(map(re.escape, TAGS)))


@dataclass(frozen=True, slots=True)
class ParsedReasoning:
    """The result of `parse`.

    `think` and `answer` are the bodies as written, white space included. A body is given if its block occurs exactly once,
    closed, without tags inside and not inside another block, even if other rules are broken; otherwise None. A tag that the
    thinking only names is text. `faults` are keys of `FAULTS` (or `R1_FAULTS`), without repetition. `summary` is the text for the
    reader: the answer's body, or in R1's form all text after the thinking; a program is searched there.
    """

    think: str | None
    answer: str | None
    faults: tuple[str, ...]
    summary: str | None = None

    @property
    def well_formed(self) -> bool:
        return not self.faults


@dataclass(frozen=True, slots=True)
class _Block:
    """The span of a block's body, or the faults because of which it has none."""

    start: int = -1
    end: int = -1
    faults: tuple[str, ...] = ()

    @property
    def exists(self) -> bool:
        return self.start >= 0


def reasoned(thinking: str, answer: object) -> str:
    """Return a well-formed completion with the space that separates it from its prompt."""
    return f" {THINK_OPEN}{thinking}{THINK_CLOSE}{ANSWER_OPEN}{answer}{ANSWER_CLOSE}"


def has_visible_text(text: str) -> bool:
    """True if `text` has a visible character: not white space, not a control or zero-width character."""
    return any(not character.isspace() and character.isprintable() for character in text)


def parse(text: str, allow_empty_think: bool = False) -> ParsedReasoning:
    """Parse a completion of R1-Zero and list every rule of the format that it breaks.

    By default an empty think block is a fault, because otherwise a model learns to answer without thinking and still gets the
    format reward. `allow_empty_think=True` accepts it, for templates that force an empty think block.
    """
    tags = _tags(text)
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
    return ParsedReasoning(think_body, answer_body, tuple(dict.fromkeys(faults)), answer_body)


def parse_r1(text: str, allow_empty_think: bool = False) -> ParsedReasoning:
    """Parse a completion in R1's form: one think block, then a summary.

    A text without think tags is all summary (with the fault that the think block is missing); a text whose thinking never ends has
    no summary.
    """
    tags = _tags(text)
    think = _find_block(tags, "think")
    faults = list(think.faults)
    think_body = text[think.start : think.end] if think.exists else None
    if _has_nested_tag(think, tags):
        faults.append("nested")
        think_body = None
    if think_body is not None and not allow_empty_think and not has_visible_text(think_body):
        faults.append("empty_think")
    if think.exists and has_visible_text(text[: think.start - len(THINK_OPEN)]):
        faults.append("text_outside")
    start, summary = _summary_start(think, tags), None
    if start is not None:
        summary = text[start:]
        if any(begin >= start for _, begin, _ in tags):
            faults.append("tag_in_summary")
            summary = None
        elif not has_visible_text(summary):
            faults.append("missing_summary")
    return ParsedReasoning(think_body, _answer_in(summary), tuple(faults), summary)


def parse_opened(text: str, allow_empty_think: bool = False) -> ParsedReasoning:
    """`parse` for a completion whose think block the prompt has opened."""
    return parse(THINK_OPEN + text, allow_empty_think)


def parse_r1_opened(text: str, allow_empty_think: bool = False) -> ParsedReasoning:
    """`parse_r1` for a completion whose think block the prompt has opened."""
    return parse_r1(THINK_OPEN + text, allow_empty_think)


def _summary_start(think: _Block, tags: list[Tag]) -> int | None:
    if "missing_think" in think.faults:
        return 0
    closes = [end for tag, _, end in tags if tag == THINK_CLOSE]
    return closes[0] if think.exists or "unopened_think" in think.faults else None


def _answer_in(summary: str | None) -> str | None:
    if summary is None or BOXED in summary:
        return None if summary is None else last_boxed(summary)
    return None if "\n" in summary.strip() else summary


def _tags(text: str) -> list[Tag]:
    """Return the tags that open and close blocks, in order."""
    return real_tags(text, [(match.group(), match.start(), match.end()) for match in _TAG.finditer(text)])


def _find_block(tags: list[Tag], kind: str) -> _Block:
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


def _has_nested_tag(block: _Block, tags: list[Tag]) -> bool:
    return block.exists and any(block.start <= start < block.end for _, start, _ in tags)


def _has_text_outside(text: str, tags: list[Tag]) -> bool:
    """True if there is visible text outside the blocks."""
    position, outside = 0, True
    for tag, start, end in tags:
        if outside and has_visible_text(text[position:start]):
            return True
        position, outside = end, tag.startswith("</")
    return outside and has_visible_text(text[position:])


@dataclass(frozen=True, slots=True)
class Form:
    """A completion format: `parse` takes a completion and whether an empty think is allowed; `faults` are all it can report.

    `has_answer_block`: the answer has its own block; `is_opened`: the prompt has opened the think block; `empty_think`: the text
    that, put after the prompt, forces an empty think block.
    """

    name: FormName
    parse: Callable[..., ParsedReasoning]
    faults: Mapping[str, str]
    has_answer_block: bool
    is_opened: bool
    empty_think: str


_ALL = (
    Form(R1_ZERO_FORM, parse, FAULTS, True, False, f" {THINK_OPEN}{THINK_CLOSE}{ANSWER_OPEN}"),
    Form(R1_FORM, parse_r1, R1_FAULTS, False, False, f" {THINK_OPEN}{THINK_CLOSE}"),
    Form(R1_ZERO_OPENED_FORM, parse_opened, FAULTS, True, True, THINK_CLOSE + ANSWER_OPEN),
    Form(R1_OPENED_FORM, parse_r1_opened, R1_FAULTS, False, True, THINK_CLOSE),
)
FORMS: Mapping[str, Form] = MappingProxyType({form.name: form for form in _ALL})
