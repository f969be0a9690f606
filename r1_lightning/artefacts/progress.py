"""How far a long piece of work is: a bar that moves where a person watches, and plain lines now and then where nobody does.

A bar is drawn by carriage returns, which a log file (nohup, a batch system, CI) keeps as one endless line.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, TextIO

from tqdm import tqdm

EVERY_S = 20.0  # between two plain lines
PLAIN_FORMAT = "{desc}: {n_fmt}/{total_fmt}, {percentage:.0f}%, {elapsed} elapsed, {remaining} left{postfix}"


class Lines:
    """What tqdm writes, as lines: without carriage returns, and none twice in a row."""

    def __init__(self, file: TextIO) -> None:
        self.file, self.last = file, ""

    def write(self, text: str) -> None:
        line = text.strip()
        if line and line != self.last:
            self.last = line
            self.file.write(f"{line}\n")
            self.file.flush()

    def flush(self) -> None:
        """Every line has been flushed."""


def is_watched(file: TextIO) -> bool:
    """Whether what is written to `file` comes before a person's eyes as it is written."""
    return bool(getattr(file, "isatty", lambda: False)())


def settings_for(file: TextIO) -> Mapping[str, Any]:
    """The keyword arguments with which tqdm writes to `file` as it should."""
    if is_watched(file):
        return {"file": file}
    return {"file": Lines(file), "mininterval": EVERY_S, "maxinterval": EVERY_S, "bar_format": PLAIN_FORMAT}


def progress(total: int, what: str, unit: str, initial: int = 0) -> tqdm:
    """A tqdm over `total` units (to be told by `update`), on stderr."""
    return tqdm(total=total, initial=initial, desc=what, unit=unit, **settings_for(sys.stderr))
