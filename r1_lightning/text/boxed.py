r"""The last `\boxed{...}` of a text: where mathematicians, and R1's summaries, put an answer.

`last_boxed` reads what a model wrote, and wants the box as it should be. `boxed_answer` reads published solutions, where `\fbox{7}`
and `\boxed 5` mean the same. In both a brace after a backslash is a sign that is shown, and neither opens nor closes anything.
"""

from __future__ import annotations

import re

BOXED = "\\boxed{"
MAX_BOX_CHARS = 65_536  # longer than any answer, those of generated puzzles among them
_BOX = re.compile(r"\\(?:boxed|fbox)\s*")
_BRACE = re.compile(
    r"\\.|[{}]", re.DOTALL
)  # an escape is one token: `\{` is no brace, and in `\\}` the last sign is one


def last_boxed(text: str) -> str | None:
    """What the last box of `text` holds, braces balanced, as written; None where none is there or it is not closed."""
    start = text.rfind(BOXED)
    return None if start < 0 else _body(text, start + len(BOXED))


def boxed_answer(text: str) -> str | None:
    r"""What stands in the last `\boxed{...}` or `\fbox{...}` without outer white space, or, as in `\boxed 5$`, after it.

    None where there is no box, where it is empty, or its brace is never closed.
    """
    boxes = list(_BOX.finditer(text))
    if not boxes:
        return None
    start = boxes[-1].end()
    if text[start : start + 1] == "{":
        return (_body(text, start + 1) or "").strip() or None
    return re.split(r"[\s$]", text[start:], maxsplit=1)[0] or None


def _body(text: str, start: int) -> str | None:
    """From `start`, which follows an opening brace, to the brace that closes it."""
    depth = 1
    for token in _BRACE.finditer(text, start, start + MAX_BOX_CHARS + 1):
        depth += {"{": 1, "}": -1}.get(token[0], 0)
        if depth == 0:
            return text[start : token.start()]
    return None
