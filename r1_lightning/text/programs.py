"""Which program a completion gives: the last fenced Python block in its place, or all of the place where nothing is fenced.

As with other answers (`text.answers`), two readings are kept apart: *strict*, the place is the body of the one, closed answer
block; *lenient*, the program at the end in any form: the last answer block, closed or not, else the last fenced block anywhere.

A fence is a line that begins with three backticks; it counts as Python where it says `python`, `py`, `python3` or nothing. A
block that is not closed is no block. Nothing is compiled here.
"""

from __future__ import annotations

import re

from r1_lightning.text.reasoning_format import ANSWER_CLOSE, ANSWER_OPEN, has_visible_text, parse

MAX_PROGRAM_CHARS = 65_536  # longer than what contests accept; the rest of a long answer is not code

_FENCE = re.compile(r"^[ \t]*```[ \t]*(\S*)[^\n]*$", re.MULTILINE)
_PYTHON = ("python", "python3", "py", "")


def final_program(text: str) -> str | None:
    """The strict program, or None if there is not exactly one answer block or nothing in it."""
    return _program_in(parse(text).answer)


def lenient_program(text: str) -> str | None:
    """The program at the end of `text` in any form, or None."""
    start = text.rfind(ANSWER_OPEN)
    if start >= 0:
        return _program_in(text[start + len(ANSWER_OPEN) :].split(ANSWER_CLOSE)[0])
    return _usable(last_fenced(text))


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


def _program_in(body: str | None) -> str | None:
    if body is None:
        return None
    fenced = last_fenced(body)
    return _usable(body.strip("\n") if fenced is None else fenced)


def _usable(program: str | None) -> str | None:
    if program is None or len(program) > MAX_PROGRAM_CHARS or not has_visible_text(program):
        return None
    return program
