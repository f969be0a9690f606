"""Rows of the check, as a table for people and as a small file that says where, with what and when they were measured."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

from r1_lightning.artefacts.lineage import PACKAGES

LIBRARIES = (*PACKAGES, "triton", "trl", "datasets", "transformer-engine")
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
    """Rates as whole numbers, seconds with their decimals."""
    return f"{value:.3f} {unit}" if unit == "s/step" else f"{value:,.0f} {unit}"


def versions() -> dict[str, str]:
    """Python and the libraries whose versions can change a rate; "absent" for what is not installed."""
    found = {"python": platform.python_version()}
    for library in LIBRARIES:
        try:
            found[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            found[library] = "absent"
    return found


def write(rows: Sequence[Row], hardware: Mapping[str, Any], commit: str, folder: Path) -> Path:
    """`folder`/<date>-<device>.json (or ...-2.json where that exists): hardware, versions, commit, date, rows."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{date.today().isoformat()}-{re.sub(r'[^a-z0-9]+', '-', str(hardware['device']).lower()).strip('-')}"
    path, number = folder / f"{stem}.json", 1
    while path.exists():
        number += 1
        path = folder / f"{stem}-{number}.json"
    record = {
        "date": date.today().isoformat(),
        "commit": commit,
        "hardware": dict(hardware),
        "versions": versions(),
        "rows": [asdict(row) for row in rows],
    }
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return path
