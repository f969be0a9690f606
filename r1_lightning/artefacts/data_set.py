"""Data-set artefacts: parts in JSON Lines, row counts and a data card in place of weights.

    data/part-00000.jsonl ...   one row per line        counts.json   rows kept, and rows dropped by reason
    data_card.md                the counts as text

A part is written to a temporary file and then renamed, so every `part-*.jsonl` is complete. The artefact's marker holds the size
and SHA-256 of every file, as it does for weights.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from r1_lightning.artefacts.files import replacing, sha256_of
from r1_lightning.types.errors import InvalidInput, require

DATA = "data"
CARD = "data_card.md"
COUNTS = "counts.json"
ROWS_PER_PART = 10_000  # a file of some hundred MB where completions have 10,000 tokens
_PART = re.compile(r"part-\d{5,}\.jsonl")


def parts_of(folder: Path) -> list[Path]:
    """Return the parts of the data set in `folder`, in order; an empty list if it holds no data set."""
    inside = folder / DATA
    found = inside.iterdir() if inside.is_dir() else ()
    return sorted((path for path in found if _PART.fullmatch(path.name)), key=lambda path: (len(path.name), path.name))


def part_path(folder: Path, number: int) -> Path:
    return folder / DATA / f"part-{number:05d}.jsonl"


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write `rows` as JSON lines, atomically; equal rows give equal bytes."""
    path.parent.mkdir(exist_ok=True)
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as stream:
        for row in rows:
            stream.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")


def write_parts(folder: Path, rows: Iterable[Mapping[str, Any]], rows_per_part: int = ROWS_PER_PART) -> None:
    """Write `rows` as parts of at most `rows_per_part` rows each."""
    part: list[Mapping[str, Any]] = []
    number = 0
    for row in rows:
        part.append(row)
        if len(part) == rows_per_part:
            write_lines(part_path(folder, number), part)
            part, number = [], number + 1
    if part:
        write_lines(part_path(folder, number), part)


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of one file; `InvalidInput` names the first damaged line."""
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                row = json.loads(line.decode("utf-8"))
            except UnicodeDecodeError as error:
                raise InvalidInput(f"{path}, line {number}: not valid UTF-8 (byte {error.start})") from error
            except (ValueError, RecursionError) as error:
                raise InvalidInput(f"{path}, line {number}: not valid JSON ({error})") from error
            if not isinstance(row, dict) or not line.endswith(b"\n"):
                raise InvalidInput(f"{path}, line {number}: it is cut off, or no JSON object")
            yield row


def describe_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Return size and SHA-256 of each file of the data set in `folder`, by name; empty if it holds no data set."""
    parts = parts_of(folder)
    extra = [folder / name for name in (COUNTS, CARD) if parts and (folder / name).is_file()]
    return {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
        for path in (*parts, *extra)
    }


def verify_files(folder: Path, files: Mapping[str, Mapping[str, Any]]) -> None:
    """Compare the files in `folder` with their recorded sizes and SHA-256; `InvalidInput` names the first difference."""
    for name, recorded in files.items():
        path = folder / name
        require(path.is_file(), "artefact", str(folder), f"{name} is missing")
        size = path.stat().st_size
        word = "truncated" if size < recorded["bytes"] else "changed"
        written = f"{name} is {word}, {size} bytes where {recorded['bytes']} were written"
        require(size == recorded["bytes"], "artefact", str(folder), written)
        damaged = f"{name} is damaged, its SHA-256 is not the one that was recorded"
        require(sha256_of(path) == recorded["sha256"], "artefact", str(folder), damaged)
    unknown = sorted({path.relative_to(folder).as_posix() for path in parts_of(folder)} - set(files))
    require(not unknown, "artefact", str(folder), f"{', '.join(unknown)} was not there when it was made")
