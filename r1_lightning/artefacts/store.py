"""Artefacts on disk: one folder per trained result, and the rule that nothing which exists is overwritten or lost.

    <root>/<stage>-<model>-<task>-<first 10 digits of the fingerprint>[-2, -3, ...]/
        artefact.json        written last: an artefact is complete if and only if this file is there
        weights.safetensors  the weights        tokenizer/   HuggingFace format
        config.yaml          the resolved configuration      table.txt    what a person reads at the end
        checkpoints/         what an interrupted run resumes from         .lock  held while a process works here

Every file is written beside its place, flushed to the disk and moved there in one step, so that a kill at any moment
leaves either the old state or the new one. Files inside a folder are reached through `output_folder`, which turns a full
disk or a read-only folder into one clear line.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from r1_lightning.artefacts.fingerprint import SHORT_DIGITS
from r1_lightning.types.errors import InvalidInput, require

MARKER = "artefact.json"
WEIGHTS = "weights.safetensors"
TOKENIZER = "tokenizer"
TABLE = "table.txt"
CONFIG = "config.yaml"
LOCK = ".lock"

# What the operating system says when a folder cannot take a file, and how a person says it.
FOLDER_ERRORS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "it is read-only",
    errno.EACCES: "permission to write is denied",
    errno.EPERM: "permission to write is denied",
    errno.ENOTDIR: "a part of its path is a file",
    errno.EEXIST: "a file stands in its place",
}


@dataclass(frozen=True)
class Artefact:
    """A folder of the store. `complete` is False while it is being made: then only the first three fields are known.

    `inputs` maps a role (`base`) to {"stage", "fingerprint", "folder"}, the folder relative to this one; `metrics` maps a metric's
    name to its value; `created` is UTC in ISO 8601; `weights_bytes` and `weights_sha256` describe weights.safetensors.
    """

    folder: Path
    stage: str
    fingerprint: str
    complete: bool = False
    commit: str = "unknown"
    created: str = ""
    weights_bytes: int = 0
    weights_sha256: str = ""
    inputs: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def weights_path(self) -> Path:
        return self.folder / WEIGHTS

    @property
    def tokenizer_folder(self) -> Path:
        return self.folder / TOKENIZER


@contextmanager
def output_folder(folder: Path) -> Iterator[None]:
    """Turn an `OSError` that says `folder` cannot be written (full, read-only, a file in the way) into `InvalidInput`.

    An error about a named file outside `folder` is not ours to explain and passes through.
    """
    try:
        yield
    except OSError as error:
        place = error.filename
        outside = isinstance(place, (str, os.PathLike)) and not _related(Path(place), folder)
        if error.errno not in FOLDER_ERRORS or outside:
            raise
        raise InvalidInput(f"the output folder {folder} cannot be written: {FOLDER_ERRORS[error.errno]} ({error})") from error


def _related(path: Path, folder: Path) -> bool:
    """Whether `path` is `folder`, lies in it, or is one of its parents (mkdir names the parent that refused)."""
    path, folder = Path(os.path.abspath(path)), Path(os.path.abspath(folder))
    return path == folder or folder in path.parents or path in folder.parents


def write_text(path: Path, text: str) -> None:
    """Write `path` atomically: whoever looks sees the old file or the whole new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with output_folder(path.parent):
        try:
            with open(temporary, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            put_in_place(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def put_in_place(temporary: Path, path: Path) -> None:
    """Move a finished, flushed file to its name and flush the folder's own entry."""
    os.replace(temporary, path)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write `value` as readable JSON, atomically. NaN and infinity become null: strict JSON has neither."""
    write_text(path, json.dumps(_strict(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _strict(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, as hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_complete(folder: Path) -> bool:
    return (folder / MARKER).is_file()


def open_artefact(folder: Path) -> Artefact:
    """Read a complete artefact; `InvalidInput` if the folder is missing, unfinished or its marker unreadable."""
    require(folder.is_dir(), "artefact", str(folder), "there is no such folder")
    require(is_complete(folder), "artefact", str(folder),
            f"it is incomplete, {MARKER} is missing; the command that began it finishes it")
    try:
        record = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        return Artefact(
            folder=folder, stage=record["stage"], fingerprint=record["fingerprint"], complete=True,
            commit=record["commit"], created=record["created"], weights_bytes=record["weights"]["bytes"],
            weights_sha256=record["weights"]["sha256"], inputs=record["inputs"], metrics=record["metrics"],
            environment=record["environment"],
        )
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInput(f"artefact={str(folder)!r} is not allowed: {MARKER} cannot be read ({error!r})") from error


def verify(artefact: Artefact) -> None:
    """Compare the weights with what was recorded when they were written; `InvalidInput` says what differs."""
    path = artefact.weights_path
    require(path.is_file(), "artefact", str(artefact.folder), f"{WEIGHTS} is missing")
    size = path.stat().st_size
    if size != artefact.weights_bytes:
        word = "truncated" if size < artefact.weights_bytes else "changed"
        raise InvalidInput(f"artefact={str(artefact.folder)!r} is not allowed: {WEIGHTS} is {word}, "
                           f"{size} bytes where {artefact.weights_bytes} were written")
    require(sha256_of(path) == artefact.weights_sha256, "artefact", str(artefact.folder),
            f"{WEIGHTS} is damaged, its SHA-256 is not the one in {MARKER}")


def find(root: Path, stage: str, fingerprint: str) -> Artefact | None:
    """The artefact to use: the newest complete one of this stage and fingerprint, else the newest incomplete one."""
    found = _siblings(root, stage, fingerprint)
    for folder in reversed(found):
        if is_complete(folder):
            artefact = open_artefact(folder)
            if (artefact.stage, artefact.fingerprint) == (stage, fingerprint):
                return artefact
    unfinished = [folder for folder in found if not is_complete(folder)]
    return Artefact(unfinished[-1], stage, fingerprint) if unfinished else None


def _siblings(root: Path, stage: str, fingerprint: str) -> list[Path]:
    """Folders of this stage and fingerprint, oldest first: their number grows with every sibling."""
    pattern = re.compile(rf"{re.escape(stage)}-.+-{fingerprint[:SHORT_DIGITS]}(?:-(\d+))?")
    numbered = []
    for folder in root.iterdir() if root.is_dir() else ():
        match = pattern.fullmatch(folder.name)
        if match and folder.is_dir():
            numbered.append((int(match[1] or 1), folder.name, folder))
    return [folder for _, _, folder in sorted(numbered)]


def create(root: Path, stage: str, model: str, task: str, fingerprint: str) -> Artefact:
    """Make a new, empty folder for this artefact: the next free sibling number, whatever exists already."""
    name = f"{stage}-{model}-{task}-{fingerprint[:SHORT_DIGITS]}"
    taken = _siblings(root, stage, fingerprint)
    number = 1 + max((int(folder.name.rpartition("-")[2]) if folder.name.count("-") > 0 and _is_numbered(folder, fingerprint)
                      else 1 for folder in taken), default=0)
    with output_folder(root):
        root.mkdir(parents=True, exist_ok=True)
    while True:
        folder = root / (name if number == 1 else f"{name}-{number}")
        try:
            with output_folder(folder):
                folder.mkdir()
            return Artefact(folder, stage, fingerprint)
        except FileExistsError:
            number += 1
