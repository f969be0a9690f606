"""What a run's own files say of it beside its curves: settings, lineage, machine, results.

Read without torch, each file as if a stranger had written it: one that is missing, broken or too large says nothing, and the page
shows what the others say.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from r1_lightning.artefacts.file_names import CONFIG, MARKER
from r1_lightning.artefacts.fingerprint import SHORT_DIGITS
from r1_lightning.artefacts.locks import is_held
from r1_lightning.artefacts.run_label import NAME, experiment_of, label
from r1_lightning.artefacts.work import Work, work_in
from r1_lightning.review.run_files import read_mapping

TABLE, COMMITS = "table.txt", "commits.txt"  # as `artefacts.store` names them, which imports torch
LARGEST_BYTES = 2**20  # of a text that is read here; ours have some kB
MOST_SETTINGS = 3_000
LONGEST_SETTING = 3_000  # characters of a list
MOST_INPUTS = 100  # of a lineage, repeated ones not counted
DEEPEST = 30  # levels of a lineage
COMMIT_DIGITS = 12


@dataclass(frozen=True)
class RunFacts:
    """What the files of the run in `folder` say.

    `label` is what a person calls it, `settings` the configuration by dotted names, `lineage` the run and what it was made from:
    (depth, line) each.
    """

    folder: Path
    label: str
    state: str
    settings: Mapping[str, str] = field(default_factory=dict)
    lineage: tuple[tuple[int, str], ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, str] = field(default_factory=dict)
    table: str = ""
    work: Work | None = None


def read_facts(folder: Path) -> RunFacts:
    """Read the facts of the run in `folder`; what cannot be read is empty."""
    config, record = read_mapping(folder / CONFIG), read_mapping(folder / MARKER)
    return RunFacts(
        folder=folder,
        label=_label(folder, config),
        state="complete" if record else "running" if is_held(folder) else "interrupted",
        settings=dict(islice(dotted(config), MOST_SETTINGS)) if config else {},
        lineage=tuple(islice(_lineage(folder, "", 0, set()), MOST_INPUTS)),
        environment={str(key): str(value) for key, value in _inner(record, "environment").items()},
        metrics={str(key): str(value) for key, value in _inner(record, "metrics").items()},
        table=text_in(folder / TABLE),
        work=_work(folder),
    )


def _label(folder: Path, config: Mapping[str, Any]) -> str:
    """Return what a person calls the run: stage, experiment and seed; the folder's name if there is no configuration."""
    own = config.get("name")
    own = own if isinstance(own, str) and NAME.fullmatch(own) else None
    seed = config.get("seed")
    return label(folder.name, experiment_of(folder), own, seed) if isinstance(seed, int) else folder.name


def text_in(path: Path) -> str:
    """Return the text of a file; empty if it is missing, cannot be read, or is larger than any of ours."""
    try:
        if not path.is_file() or path.stat().st_size > LARGEST_BYTES:
            return ""
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def dotted(node: Any, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, str]]:
    """Yield the leaves of a configuration by dotted names, as text."""
    if isinstance(node, dict) and node and depth < DEEPEST:
        for key, value in node.items():
            yield from dotted(value, f"{prefix}.{key}" if prefix else str(key), depth + 1)
    elif isinstance(node, dict | list):
        yield prefix, _json(node)
    else:
        yield prefix, str(node)


def _json(node: Any) -> str:
    """Return a list or a deep mapping as JSON, its beginning if it is long: aliases make it endless, or part of itself."""
    text = ""
    try:
        for piece in json.JSONEncoder(default=str, ensure_ascii=False).iterencode(node):
            text += piece
            if len(text) > LONGEST_SETTING:
                break
    except (TypeError, ValueError, RecursionError):  # a date as key, a list that holds itself
        return f"{text}..."
    return text if len(text) <= LONGEST_SETTING else f"{text[:LONGEST_SETTING]}..."


def _inner(record: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = record.get(key)
    return value if isinstance(value, dict) else {}


def _work(folder: Path) -> Work | None:
    try:
        work = work_in(folder)
    except (OSError, ValueError):
        return None
    return work if work is not None and math.isfinite(work.seconds) else None


def _lineage(folder: Path, role: str, depth: int, seen: set[Path]) -> Iterator[tuple[int, str]]:
    """Yield (depth, line) of the artefact in `folder` and of its inputs; one used twice is told once."""
    record = read_mapping(folder / MARKER)
    commits = record.get("commits") if isinstance(record.get("commits"), list) else text_in(folder / COMMITS).split()
    words = [f"{role}:" if role else "", str(record.get("stage") or folder.name.partition("-")[0])]
    words += [
        str(record.get("fingerprint") or "")[:SHORT_DIGITS],
        f"seed {read_mapping(folder / CONFIG).get('seed', '?')}",
    ]
    words += ["commit " + ", then ".join(_short(str(commit)) for commit in commits or ["unknown"])]
    words += [str(record.get("created") or ""), str(folder)]
    yield depth, "  ".join(word for word in words if word)
    seen.add(folder.resolve())
    for name, source in _inner(record, "inputs").items():
        place = _place(folder, source.get("folder", "")) if isinstance(source, dict) else folder.resolve()
        if depth < DEEPEST and place not in seen:
            yield from _lineage(place, str(name), depth + 1, seen)


def _place(folder: Path, relative: object) -> Path:
    """Return the folder of an input; `folder` itself for what can be none, as a name with a NUL in it."""
    try:
        return (folder / str(relative)).resolve()
    except (OSError, ValueError, RuntimeError):
        return folder.resolve()


def _short(commit: str) -> str:
    return commit[:COMMIT_DIGITS] + ("-dirty" if commit.endswith("-dirty") else "")
