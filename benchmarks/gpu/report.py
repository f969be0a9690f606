"""Rows of the check, as a table for people and as a small file that says where, with what and when they were measured."""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

LIBRARIES = (
    *("torch", "lightning", "safetensors", "tokenizers", "transformers", "hydra-core", "omegaconf"),
    *("triton", "trl", "datasets", "transformer-engine"),
)
GIB = 2**30


@dataclass(frozen=True)
class Row:
    """One piece of work: its rate and what stands beside it, or the reason for which it was not run.

    `value` is in `unit`. `beside` is the comparison in words. `details` are the numbers behind it (SI units), for the file.
    `not_run` is empty where it ran; `failed` says that an error of ours, and not something missing, is the reason.
    """

    part: str
    work: str
    unit: str = ""
    value: float | None = None
    beside: str = ""
    peak_bytes: int | None = None
    details: Mapping[str, float | str | None] = field(default_factory=dict)
    not_run: str = ""
    failed: bool = False


class Table:
    """The rows in the order in which their work came; a later row of the same work takes the place of the earlier one.

    A row without a value does not take away one with a value: its reason is added to what stands beside the value.
    """

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], Row] = {}

    def add(self, row: Row) -> None:
        key = (row.part, row.work)
        before = self._rows.get(key)
        if before is not None and before.value is not None and row.value is None:
            joined = "; then ".join(text for text in (before.beside, row.not_run) if text)
            row = replace(before, beside=joined, failed=before.failed or row.failed)
        self._rows[key] = row

    @property
    def rows(self) -> list[Row]:
        return list(self._rows.values())


def render(rows: Sequence[Row]) -> str:
    """The table in Markdown."""
    lines = ["| work | rate | beside | peak memory |", "|---|---|---|---|"]
    for row in rows:
        if row.value is None:
            lines.append(f"| {row.work} | not run: {row.not_run} | | |")
        else:
            peak = "not known" if row.peak_bytes is None else f"{row.peak_bytes / GIB:.1f} GiB"
            lines.append(f"| {row.work} | {quantity(row.value, row.unit)} | {row.beside} | {peak} |")
    return "\n".join(lines)


def quantity(value: float, unit: str) -> str:
    """Rates as whole numbers, seconds and ratios with their decimals."""
    if unit.startswith("x "):
        return f"{value:.2f}{unit}"
    return f"{value:.3f} {unit}" if unit == "s/step" else f"{value:,.0f} {unit}"


def versions(libraries: Sequence[str] = LIBRARIES) -> dict[str, str]:
    """Python and the libraries whose versions can change a result; "absent" for what is not installed."""
    found = {"python": platform.python_version()}
    for library in libraries:
        try:
            found[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            found[library] = "absent"
    return found


class RecordFile:
    """`folder`/<date>-<device>.json (or ...-2.json where that exists): hardware, versions, commit, date, rows.

    The name is chosen once; `write` then replaces the whole file at once, so that it is readable whenever the run is killed.
    """

    def __init__(self, folder: Path, hardware: Mapping[str, Any], commit: str) -> None:
        self.folder, self.commit, self.hardware = folder, commit, dict(hardware)
        self.path: Path | None = None

    def write(self, rows: Sequence[Row]) -> Path | None:
        """Write `rows` if one of them has a value; the file's path, None where nothing has been written."""
        if all(row.value is None for row in rows):
            return self.path
        self.path = self.path or self._free_path()
        record = {
            "date": date.today().isoformat(),
            "commit": self.commit,
            "hardware": self.hardware,
            "versions": versions(),
            "rows": [asdict(row) for row in rows],
        }
        beside = self.path.with_suffix(".part")
        beside.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        os.replace(beside, self.path)
        return self.path

    def _free_path(self) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        device = re.sub(r"[^a-z0-9]+", "-", str(self.hardware["device"]).lower()).strip("-")
        stem = f"{date.today().isoformat()}-{device}"
        path, number = self.folder / f"{stem}.json", 1
        while path.exists():
            number += 1
            path = self.folder / f"{stem}-{number}.json"
        return path
