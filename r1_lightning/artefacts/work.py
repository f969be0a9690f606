"""How long a stage was worked on: a line when a process begins, one with its seconds when it ends, however often it was cut off.

    begin
    end 93.417

A process that was killed leaves a begin without an end: its time is not known, and the count of such says so.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

WORK = "work.txt"


@dataclass(frozen=True)
class Work:
    """`seconds` on the clock of all processes that ended, and how many others there were (`n_unknown`)."""

    seconds: float
    n_unknown: int = 0


@contextmanager
def timed(folder: Path) -> Iterator[None]:
    """Write down that a process works in `folder` now, and for how long it did."""
    _append(folder, "begin")
    start_s = time.monotonic()
    try:
        yield
    finally:
        if folder.is_dir():  # a stage that refuses its input leaves none
            _append(folder, f"end {time.monotonic() - start_s:.3f}")


def work_in(folder: Path) -> Work | None:
    """What is known of the work in `folder`; None where nothing was written down (artefacts of older versions)."""
    path = folder / WORK
    if not path.is_file():
        return None
    lines = path.read_text(encoding="utf-8").splitlines()
    ended = [float(line.removeprefix("end ")) for line in lines if line.startswith("end ")]
    return Work(sum(ended), lines.count("begin") - len(ended))


def _append(folder: Path, line: str) -> None:
    with (folder / WORK).open("a", encoding="utf-8") as stream:
        stream.write(line + "\n")
