"""Extracts the program of a completion: the last fenced Python block in the prescribed place, or the whole place without a fence.

As with other answers (`text.answers`) there are two ways. *Strict*: the place is the body of the single closed answer block, in
R1's form the summary, where an unfenced program is in the last box. *Lenient*: the program at the end in any format: the last
answer block, closed or not, else the last fenced block anywhere, else the last box.

A fence is a line that begins with three backticks; its block is Python if the fence says `python`, `py`, `python3` or nothing. An
unclosed block does not count. Nothing is compiled here.
"""

from __future__ import annotations

import re

from r1_lightning.text.boxed import last_boxed
from r1_lightning.text.reasoning_format import ANSWER_CLOSE, ANSWER_OPEN, FORMS, R1_ZERO_FORM, has_visible_text

MAX_PROGRAM_CHARS = 65_536  # longer than contests accept

_FENCE = re.compile(r"^[ \t]*```[ \t]*(\S*)[^\n]*$", re.MULTILINE)
_PYTHON = ("python", "python3", "py", "")


def final_program(text: str, form: str = R1_ZERO_FORM) -> str | None:
    """Return the strict program, or None if its place is missing, empty or ambiguous."""
    parsed = FORMS[form].parse(text)
    if FORMS[form].has_answer_block or parsed.summary is None:
        return _program_in(parsed.summary)
    return _fenced_or_boxed(parsed.summary)


def lenient_program(text: str) -> str | None:
    """Return the program at the end of `text` in any format, or None."""
    start = text.rfind(ANSWER_OPEN)
    if start >= 0:
        return _program_in(text[start + len(ANSWER_OPEN) :].split(ANSWER_CLOSE)[0])
    return _fenced_or_boxed(text)


def last_fenced(text: str) -> str | None:
    """Return the body of the last closed Python block in `text`, or None."""
    found, opened = None, None
    for fence in _FENCE.finditer(text):
        if opened is None:
            opened = fence
        elif not fence.group(1):
            if opened.group(1).lower() in _PYTHON:
                found = text[opened.end() + 1 : fence.start()]
            opened = None
    return found


def _fenced_or_boxed(text: str) -> str | None:
    fenced = last_fenced(text)
    return _usable(last_boxed(text) if fenced is None else fenced)


def _program_in(body: str | None) -> str | None:
    """Return the last fenced block of `body`; without one all of `body` if it may be a program."""
    if body is None:
        return None
    fenced = last_fenced(body)
    return _usable(body.strip("\n") if fenced is None else fenced)


def _usable(program: str | None) -> str | None:
    if program is None or len(program) > MAX_PROGRAM_CHARS or not has_visible_text(program):
        return None
    return program
