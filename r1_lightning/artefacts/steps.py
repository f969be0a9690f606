"""A run's last step, read from its metrics.csv by another process: without torch, and while the run is still writing."""

from __future__ import annotations

import csv
from pathlib import Path

from r1_lightning.artefacts.file_names import METRICS

TAIL_BYTES = 65_536  # of metrics.csv, enough for its last rows


def last_row(folder: Path) -> dict[str, str]:
    """Return the last complete row that the run in `folder` has logged, by column name; empty if it has logged none."""
    path = folder / METRICS
    try:
        with path.open("rb") as file:
            header = next(csv.reader([file.readline().decode("utf-8")]), [])
            file.seek(max(file.tell(), path.stat().st_size - TAIL_BYTES))
            lines = file.read().decode("utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    if "step" not in header:
        return {}
    for row in csv.reader(reversed(lines)):  # the last line may be half written
        named = dict(zip(header, row, strict=False))
        if len(row) == len(header) and named["step"].isdigit():
            return named
    return {}


def last_step(folder: Path) -> int | None:
    """Return the number of optimizer steps that the run in `folder` has logged; None if it has logged none."""
    row = last_row(folder)
    return int(row["step"]) + 1 if row else None
