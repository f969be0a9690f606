r"""The last `\boxed{...}` of a text: where mathematicians, and R1's summaries, put an answer."""

from __future__ import annotations

BOXED = "\\boxed{"
MAX_BOX_CHARS = 1_000  # longer than any answer


def last_boxed(text: str) -> str | None:
    """What the last box of `text` holds, braces balanced, as written; None where none is there or it is not closed."""
    start = text.rfind(BOXED)
    if start < 0:
        return None
    start += len(BOXED)
    depth = 1
    for position in range(start, min(len(text), start + MAX_BOX_CHARS + 1)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return text[start:position]
    return None
