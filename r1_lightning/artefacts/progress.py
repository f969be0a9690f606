"""Progress of long work: a moving bar in a terminal, a plain line every `EVERY_S` seconds in a log file.

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
    """A file for tqdm that writes its output as lines: no carriage returns, no line twice in a row."""

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
    """True if `file` is a terminal, where a person can watch a moving bar."""
    return bool(getattr(file, "isatty", lambda: False)())


def settings_for(file: TextIO) -> Mapping[str, Any]:
    """Return tqdm's keyword arguments for `file`: a bar in a terminal, plain lines elsewhere."""
    if is_watched(file):
        return {"file": file}
    return {"file": Lines(file), "mininterval": EVERY_S, "maxinterval": EVERY_S, "bar_format": PLAIN_FORMAT}


def progress(total: int, what: str, unit: str, initial: int = 0) -> tqdm:
    """Return a tqdm bar over `total` units on stderr; the caller advances it by `update`."""
    return tqdm(total=total, initial=initial, desc=what, unit=unit, **settings_for(sys.stderr))
