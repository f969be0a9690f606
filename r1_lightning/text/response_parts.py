"""Selects the part of a response that a reward model reads: the final summary, or the whole.

R1's helpful reward reads the final summary only, so that it does not interfere with the reasoning, and its safety reward reads
the whole response, reasoning included (R1v2 section 3.1). Our definition of the final summary:

1. the body of the answer block, if there is exactly one (the format of R1-Zero's template);
2. else the text after the only `</think>` (R1's form);
3. else, in a text without think tags, the whole text, because all of it addresses the reader.

A text whose thinking never ends has no summary.
"""

from __future__ import annotations

from typing import Literal, get_args

from r1_lightning.text.reasoning_format import THINK_CLOSE, THINK_OPEN, has_visible_text, parse

Part = Literal["summary", "whole"]
PARTS: tuple[str, ...] = get_args(Part)


def final_summary(text: str) -> str | None:
    """Return the final summary of a response, stripped; None if it is missing or empty."""
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
    """Return the summary or the whole of a response after one space, as in our templates' completions; None if missing."""
    body = final_summary(text) if part == "summary" else text.strip() if has_visible_text(text) else None
    return None if body is None else f" {body}"
