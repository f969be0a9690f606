"""The curves of a run, read from its metrics.csv as from a stranger's file.

A row is an optimizer step, a column a metric. A run that was killed and resumed may have rows twice, or a line that was cut off:
a row of step s takes back every earlier row of step s or later, as training did, and a line with too few or too many fields is
left out. What is no number is left out as well; NaN and infinity are kept, because a rule looks for them.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

from r1_lightning.artefacts.file_names import METRICS
from r1_lightning.types.errors import InvalidInput

MAX_BYTES = 256 * 2**20  # of metrics.csv; a row of 60 metrics has about 1 KB, so this is a run of 200,000 steps
MAX_COLUMNS = 1000
MAX_FIELDS = 20_000_000  # of all rows; each takes about 140 bytes of memory, and a short one two of the file
MAX_STEP_DIGITS = 12
NAME = re.compile(r"[A-Za-z0-9_][\w./@+-]{0,119}", re.ASCII)  # of a metric; other columns are left out
NO_METRIC = ("step", "epoch")


@dataclass(frozen=True)
class Series:
    """One metric over the run: `values[i]` was logged at optimizer step `steps[i]`, counted from 0, in rising order."""

    steps: tuple[int, ...]
    values: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.steps)

    def averaged(self, window: int) -> Series:
        """The means of `window` steps each, at the last step of each; a window that is not whole is left out.

        `window` 1 returns the series itself.
        """
        if window == 1:
            return self
        groups: dict[int, list[float]] = {}
        for step, value in zip(self.steps, self.values, strict=True):
            groups.setdefault(step // window, []).append(value)
        # Not logged at every step: a group counts as whole once a later one has begun, or its last step is there.
        ends = {group: (group + 1) * window - 1 for group in groups}
        whole = [group for group, end in ends.items() if self.steps[-1] >= end]
        return Series(tuple(ends[group] for group in whole), tuple(mean_of(groups[group]) for group in whole))


def read_series(folder: Path) -> dict[str, Series]:
    """Return every metric that the run in `folder` has logged, by name; empty if there is no metrics.csv.

    Raises `InvalidInput` if the file is larger or wider than any run of ours makes it, or cannot be read.
    """
    path = folder / METRICS
    try:
        if not path.is_file():
            return {}
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise InvalidInput(f"{path} has {size} bytes, which is not allowed: at most {MAX_BYTES} are read")
        with path.open(encoding="utf-8", errors="replace", newline="") as file:
            return _series(_rows(path, file))
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {' '.join(str(error).split())}") from error


def _rows(path: Path, lines: Iterator[str]) -> list[tuple[int, Mapping[str, str]]]:
    """The rows that count, in order of their steps."""
    reader = csv.reader(line.replace("\0", "") for line in lines)
    try:
        header = next(reader, [])
        if len(header) > MAX_COLUMNS:
            raise InvalidInput(
                f"{path} has {len(header)} columns, which is not allowed: at most {MAX_COLUMNS} are read"
            )
        rows: list[tuple[int, Mapping[str, str]]] = []
        read = 0
        for fields in reader:
            read += len(fields)
            if read > MAX_FIELDS:
                raise InvalidInput(
                    f"{path} has more than {MAX_FIELDS} fields, which is not allowed: it would fill the memory"
                )
            named = dict(zip(header, fields, strict=False))
            digits = named.get("step", "")
            if len(fields) != len(header) or not re.fullmatch(rf"[0-9]{{1,{MAX_STEP_DIGITS}}}", digits):
                continue
            while rows and rows[-1][0] >= int(digits):
                rows.pop()
            rows.append((int(digits), named))
    except csv.Error as error:
        raise InvalidInput(f"{path} is not allowed: it is no table of metrics ({error})") from error
    return rows


def _series(rows: Sequence[tuple[int, Mapping[str, str]]]) -> dict[str, Series]:
    points: dict[str, list[tuple[int, float]]] = {}
    for step, named in rows:
        for name, text in named.items():
            if name in NO_METRIC or not NAME.fullmatch(name) or (value := _number(text)) is None:
                continue
            points.setdefault(name, []).append((step, value))
    return {
        name: Series(tuple(step for step, _ in pairs), tuple(value for _, value in pairs))
        for name, pairs in sorted(points.items())
    }


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def mean_of(values: Sequence[float]) -> float:
    """Return the mean; NaN of nothing, of what is not finite, and of values whose sum is too large for a float."""
    if not values or not all(map(math.isfinite, values)):
        return math.nan
    try:
        return fmean(values)
    except OverflowError:
        return math.nan


def rolling(values: Sequence[float], width: int, middle: bool = False) -> list[float]:
    """Means (or medians) of `width` values up to and including each, from the first whole window on; NaN where one is NaN."""
    of = median if middle else mean_of
    windows = (values[end - width : end] for end in range(width, len(values) + 1))
    return [of(window) if all(map(math.isfinite, window)) else math.nan for window in windows]
