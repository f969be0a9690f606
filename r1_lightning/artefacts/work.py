"""Working time of a stage, summed over the processes that worked on it: each writes one line at its start and one at its end.

    begin
    end 93.417        seconds

A killed process leaves a begin without an end: its time is unknown, and `n_unknown` counts such processes.
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
    """`seconds` of wall-clock time of all processes that ended; `n_unknown` processes did not end or still run."""

    seconds: float
    n_unknown: int = 0


@contextmanager
def timed(folder: Path) -> Iterator[None]:
    """Record in `folder` that a process begins to work there and, after the block, for how long it worked."""
    _append(folder, "begin")
    start_s = time.monotonic()
    try:
        yield
    finally:
        if folder.is_dir():  # the folder of a stage that refused its input may be gone
            _append(folder, f"end {time.monotonic() - start_s:.3f}")


def work_in(folder: Path) -> Work | None:
    """Return the work recorded in `folder`; None if nothing was recorded (artefacts of older versions)."""
    path = folder / WORK
    if not path.is_file():
        return None
    lines = path.read_text(encoding="utf-8").splitlines()
    ended = [float(line.removeprefix("end ")) for line in lines if line.startswith("end ")]
    return Work(sum(ended), lines.count("begin") - len(ended))


def _append(folder: Path, line: str) -> None:
    with (folder / WORK).open("a", encoding="utf-8") as stream:
        stream.write(line + "\n")
