"""Which part of a response a reward model sees: the final summary, or the whole.

R1's helpful reward looks at the final summary only, so that it does not interfere with the reasoning, and its safety reward at
the whole response, reasoning included (R1v2 section 3.1). What "the final summary" is in a given text is our decision:

1. the body of the answer block, where there is exactly one (the form of R1-Zero's template);
2. else what follows the one `</think>` (R1's form);
3. else, in a text without any think tag, all of it: nothing was thought, so everything is said to the reader.

A text that thinks and does not come to an end of it has no summary.
"""

from __future__ import annotations

from typing import Literal, get_args

from r1_lightning.text.reasoning_format import THINK_CLOSE, THINK_OPEN, has_visible_text, parse

Part = Literal["summary", "whole"]
PARTS: tuple[str, ...] = get_args(Part)


def final_summary(text: str) -> str | None:
    """What a response says to its reader, without outer white space; None where it says nothing."""
    answer = parse(text).answer
    if answer is None:
        thinking, close, after = text.partition(THINK_CLOSE)
        if close:
            answer = after
        elif THINK_OPEN not in thinking:
            answer = text
    if answer is None or THINK_OPEN in answer or THINK_CLOSE in answer or not has_visible_text(answer):
        return None
    return answer.strip()


def part_of(text: str, part: str) -> str | None:
    """The summary or the whole of a response, begun with one space as completions of our templates are; None if it is missing."""
    body = final_summary(text) if part == "summary" else text.strip() if has_visible_text(text) else None
    return None if body is None else f" {body}"
