"""Which program a completion gives: the last fenced Python block in its place, or all of the place where nothing is fenced.

As with other answers (`text.answers`), two readings are kept apart: *strict*, the place is the body of the one, closed answer
block, in R1's form the summary, where a program that is not fenced stands in the last box; *lenient*, the program at the end in any
form: the last answer block, closed or not, else the last fenced block anywhere, else the last box.

A fence is a line that begins with three backticks; it counts as Python where it says `python`, `py`, `python3` or nothing. A
block that is not closed is no block. Nothing is compiled here.
"""

from __future__ import annotations

import re

from r1_lightning.text.boxed import last_boxed
from r1_lightning.text.reasoning_format import ANSWER_CLOSE, ANSWER_OPEN, FORMS, R1_ZERO_FORM, has_visible_text

MAX_PROGRAM_CHARS = 65_536  # longer than what contests accept; the rest of a long answer is not code

_FENCE = re.compile(r"^[ \t]*```[ \t]*(\S*)[^\n]*$", re.MULTILINE)
_PYTHON = ("python", "python3", "py", "")


def final_program(text: str, form: str = R1_ZERO_FORM) -> str | None:
    """The strict program, or None if nothing stands in its place, or not exactly one thing."""
    parsed = FORMS[form].parse(text)
    if FORMS[form].has_answer_block or parsed.summary is None:
        return _program_in(parsed.summary)
    return _fenced_or_boxed(parsed.summary)


def lenient_program(text: str) -> str | None:
    """The program at the end of `text` in any form, or None."""
    start = text.rfind(ANSWER_OPEN)
    if start >= 0:
        return _program_in(text[start + len(ANSWER_OPEN) :].split(ANSWER_CLOSE)[0])
    return _fenced_or_boxed(text)


def last_fenced(text: str) -> str | None:
    """The body of the last closed block of Python in `text`, or None."""
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
    """The last fenced block of `body`; without one all of it, if that may be a program."""
    if body is None:
        return None
    fenced = last_fenced(body)
    return _usable(body.strip("\n") if fenced is None else fenced)


def _usable(program: str | None) -> str | None:
    if program is None or len(program) > MAX_PROGRAM_CHARS or not has_visible_text(program):
        return None
    return program
