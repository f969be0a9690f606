r"""Finds the last `\boxed{...}` of a text, where mathematicians and R1's summaries put the answer.

`last_boxed` is strict, for model-written text. `boxed_answer` is for published solutions, where `\fbox{7}` and `\boxed 5` mean the
same. In both, a brace after a backslash is a printed character that neither opens nor closes a group.
"""

from __future__ import annotations

import re

BOXED = "\\boxed{"
MAX_BOX_CHARS = 65_536  # longer than every answer, including those to generated puzzles
_BOX = re.compile(r"\\(?:boxed|fbox)\s*")
_BRACE = re.compile(
    r"\\.|[{}]", re.DOTALL
)  # an escape is one token: `\{` is not a brace, but the last character of `\\}` is


def last_boxed(text: str) -> str | None:
    """Return the content of the last box of `text`, as written, with balanced braces; None without a closed box."""
    start = text.rfind(BOXED)
    return None if start < 0 else _body(text, start + len(BOXED))


def boxed_answer(text: str) -> str | None:
    r"""Return the stripped content of the last `\boxed{...}` or `\fbox{...}`, or of one without braces, as in `\boxed 5$`.

    None if there is no box, or if it is empty or not closed.
    """
    boxes = list(_BOX.finditer(text))
    if not boxes:
        return None
    start = boxes[-1].end()
    if text[start : start + 1] == "{":
        return (_body(text, start + 1) or "").strip() or None
    return re.split(r"[\s$]", text[start:], maxsplit=1)[0] or None


def _body(text: str, start: int) -> str | None:
    """Return the text from `start`, just after an opening brace, up to its closing brace."""
    depth = 1
    for token in _BRACE.finditer(text, start, start + MAX_BOX_CHARS + 1):
        depth += {"{": 1, "}": -1}.get(token[0], 0)
        if depth == 0:
            return text[start : token.start()]
    return None
