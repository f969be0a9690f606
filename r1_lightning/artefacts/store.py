"""Artefacts on disk: one folder per result of a stage. An existing artefact is never overwritten.

    <root>/<stage>-<model>-<task> or <stage>-<name>, and -<first 10 digits of the fingerprint>[-2, -3, ...]/
        artefact.json        written last: an artefact is complete if and only if this file is there
        weights.safetensors  the weights        tokenizer/   HuggingFace format        experiment.txt    (`artefacts.run_label`)
        data/part-*.jsonl    in place of both if the stage makes a data set (`artefacts.data_set`)
        config.yaml          the resolved configuration      table.txt    the results table that the command prints
        commits.txt          commits of the code that worked on it, in order    work.txt    seconds of work (`artefacts.work`)
        checkpoints/         the state to resume from        .lock        held while a process works here

The folder's name is for people and narrows the search; a complete artefact is reused only if the whole fingerprint in its
marker is equal.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from r1_lightning.artefacts import data_set
from r1_lightning.artefacts.file_names import CONFIG, MARKER
from r1_lightning.artefacts.files import input_folder, output_folder, sha256_of, unwritable, write_json, write_text
from r1_lightning.artefacts.fingerprint import SHORT_DIGITS
from r1_lightning.artefacts.locks import LOCK, TURN, exclusive_lock, locked
from r1_lightning.artefacts.weights import load_weights, save_weights
from r1_lightning.types.errors import InvalidInput, require

__all__ = [
    "COMMITS",
    "CONFIG",
    "LOCK",
    "MARKER",
    "TABLE",
    "TOKENIZER",
    "TURN",
    "WEIGHTS",
    "Artefact",
    "complete",
    "create",
    "digits_of",
    "exclusive_lock",
    "find",
    "is_complete",
    "load_weights",
    "locked",
    "open_artefact",
    "output_folder",
    "record_commit",
    "recorded_commits",
    "save_weights",
    "verify",
    "write_json",
    "write_text",
]

WEIGHTS = "weights.safetensors"
TOKENIZER = "tokenizer"
TABLE = "table.txt"
COMMITS = "commits.txt"


@dataclass(frozen=True)
class Artefact:
    """One folder of the store. Until it is complete, `complete` is False and only the first three fields are known.

    `inputs` maps a role (`base`) to its "stage", "fingerprint" and "folder" (relative to this folder, so that a root
    can be moved as a whole); `metrics` maps a metric's name to its value, None where it was not a finite number;
    `commits` are the commits of the code that worked on it, in order (more than one if a run was resumed after a change) and
    `commit` is the last; `created` is UTC in ISO 8601;
    `weights_bytes` and `weights_sha256` describe weights.safetensors as it was written. A data set has `files` in their place: the
    "bytes" and "sha256" of each file by its name.
    """

    folder: Path
    stage: str
    fingerprint: str
    complete: bool = False
    commit: str = "unknown"
    commits: tuple[str, ...] = ()
    created: str = ""
    weights_bytes: int = 0
    weights_sha256: str = ""
    inputs: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def weights_path(self) -> Path:
        """Path of the weights; `InvalidInput` if the artefact is a data set."""
        self._require_model()
        return self.folder / WEIGHTS

    @property
    def tokenizer_folder(self) -> Path:
        """Folder of the tokenizer; `InvalidInput` if the artefact is a data set."""
        self._require_model()
        return self.folder / TOKENIZER

    def _require_model(self) -> None:
        require(not self.files, "artefact", str(self.folder), "it holds a data set, and a model is needed")


def is_complete(folder: Path) -> bool:
    return (folder / MARKER).is_file()


def _hub_hint(folder: Path) -> str:
    """Return advice if `folder` is a hub name (OWNER/NAME or an address) where a folder is needed; else an empty text."""
    name = re.sub(r"^(https?:/+|hf:/+)?(www\.)?(huggingface\.co/+)?(models/)?", "", str(folder))
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name) or folder.parent.exists():
        return ""
    return f"; a checkpoint of the hub is downloaded first: hf download {name} --local-dir FOLDER, then give FOLDER"


def open_artefact(folder: Path) -> Artefact:
    """Read a complete artefact; `InvalidInput` if the folder is missing or incomplete, or its marker cannot be read."""
    with input_folder(folder):
        require(folder.is_dir(), "artefact", str(folder), f"there is no such folder{_hub_hint(folder)}")
        require(
            is_complete(folder),
            "artefact",
            str(folder),
            f"it is incomplete ({MARKER} is missing); the command that began it finishes it"
            if (folder / CONFIG).exists()
            else f"it is no artefact (it holds neither {CONFIG} nor {MARKER})",
        )
        text = (folder / MARKER).read_bytes()
    try:
        record = json.loads(text)
        weights, files = record.get("weights", {"bytes": 0, "sha256": ""}), dict(record.get("files", {}))
        if "weights" not in record and not files:
            raise KeyError("weights")
        return Artefact(
            folder=folder,
            stage=record["stage"],
            fingerprint=record["fingerprint"],
            complete=True,
            commit=record["commit"],
            commits=tuple(record.get("commits", [record["commit"]])),
            created=record["created"],
            weights_bytes=weights["bytes"],
            weights_sha256=weights["sha256"],
            inputs=record["inputs"],
            metrics=record["metrics"],
            environment=record["environment"],
            files=files,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInput(f"artefact={str(folder)!r} is not allowed: {MARKER} cannot be read ({error!r})") from error


def verify(artefact: Artefact) -> None:
    """Compare the weights, or a data set's files, with their recorded size and SHA-256; `InvalidInput` names a difference."""
    with input_folder(artefact.folder):
        if artefact.files:
            data_set.verify_files(artefact.folder, artefact.files)
        else:
            _verify(artefact)


def _verify(artefact: Artefact) -> None:
    path = artefact.weights_path
    require(path.is_file(), "artefact", str(artefact.folder), f"{WEIGHTS} is missing")
    size = path.stat().st_size
    word = "truncated" if size < artefact.weights_bytes else "changed"
    require(
        size == artefact.weights_bytes,
        "artefact",
        str(artefact.folder),
        f"{WEIGHTS} is {word}, {size} bytes where {artefact.weights_bytes} were written",
    )
    require(
        sha256_of(path) == artefact.weights_sha256,
        "artefact",
        str(artefact.folder),
        f"{WEIGHTS} is damaged, its SHA-256 is not the one in {MARKER}",
    )


def find(root: Path, stage: str, fingerprint: str) -> Artefact | None:
    """Return the newest complete artefact of this stage and fingerprint, else the newest incomplete one, else None."""
    with input_folder(root):
        return _find(root, stage, fingerprint)


def _find(root: Path, stage: str, fingerprint: str) -> Artefact | None:
    folders = [folder for _, folder in _siblings(root, stage, fingerprint)]
    for folder in reversed(folders):
        if is_complete(folder):
            artefact = open_artefact(folder)
            if (artefact.stage, artefact.fingerprint) == (stage, fingerprint):
                return artefact
    unfinished = [folder for folder in folders if not is_complete(folder)]
    return Artefact(unfinished[-1], stage, fingerprint) if unfinished else None


def _siblings(root: Path, stage: str, fingerprint: str) -> list[tuple[int, Path]]:
    """Return (sibling number, folder) of this stage and fingerprint, oldest first; numbers begin at 1."""
    pattern = re.compile(rf"{re.escape(stage)}-.+-{fingerprint[:SHORT_DIGITS]}(?:-(\d+))?")
    names = ((pattern.fullmatch(folder.name), folder) for folder in (root.iterdir() if root.is_dir() else ()))
    return sorted((int(match[1] or 1), folder) for match, folder in names if match and folder.is_dir())


def create(root: Path, stage: str, model: str, task: str, fingerprint: str, label: str | None = None) -> Artefact:
    """Make a new, empty folder for this artefact, with the next free sibling number.

    `model` and `task` are the names of config options, for people to read; `label` replaces both.
    Raises `InvalidInput` if the root cannot be written.
    """
    name = f"{stage}-{label or f'{model}-{task}'}-{fingerprint[:SHORT_DIGITS]}"
    with input_folder(root):
        number = 1 + max((number for number, _ in _siblings(root, stage, fingerprint)), default=0)
    with output_folder(root):
        try:
            root.mkdir(parents=True, exist_ok=True)
        except FileNotFoundError as error:  # some file systems (/proc) answer so where no folder can be made
            raise unwritable(root, errno.ENOENT, str(error)) from error
        while True:
            folder = root / (name if number == 1 else f"{name}-{number}")
            try:
                folder.mkdir()
                return Artefact(folder, stage, fingerprint)
            except FileExistsError:  # another process took this number since we looked
                number += 1


def digits_of(folder: Path) -> str:
    """Return the digits of the fingerprint in an artefact folder's name; empty if it has none."""
    match = re.search(rf"-([0-9a-f]{{{SHORT_DIGITS}}})(?:-\d+)?$", folder.name)
    return match[1] if match else ""


def record_commit(folder: Path, commit: str) -> None:
    """Append `commit`, which begins or resumes work in `folder`, to commits.txt, unless it is the last one there."""
    commits = recorded_commits(folder)
    if commits[-1:] != [commit]:
        write_text(folder / COMMITS, "".join(f"{line}\n" for line in (*commits, commit)))


def recorded_commits(folder: Path) -> list[str]:
    """Return the commits recorded in `folder`, in order."""
    path = folder / COMMITS
    return path.read_text(encoding="utf-8").split() if path.is_file() else []


def complete(
    artefact: Artefact,
    commit: str,
    environment: Mapping[str, str],
    inputs: Mapping[str, Artefact],
    metrics: Mapping[str, float],
) -> Artefact:
    """Write the marker that makes `artefact` complete, after all its other files; returns the artefact as read back.

    `commit` is the code's commit at the start of this process; those of earlier processes are in `commits.txt`.

    Raises `InvalidInput` if it is complete already, or if the stage left neither weights nor a data set.
    """
    require(
        not is_complete(artefact.folder), "artefact", str(artefact.folder), "it is complete, and is never overwritten"
    )
    files = data_set.describe_files(artefact.folder)
    if files:
        content: dict[str, Any] = {"files": files}
    else:
        path = artefact.weights_path
        require(
            path.is_file(), "artefact", str(artefact.folder), f"the stage wrote no {WEIGHTS}, and no data set either"
        )
        content = {"weights": {"bytes": path.stat().st_size, "sha256": sha256_of(path)}}
    write_json(
        artefact.folder / MARKER,
        {
            "stage": artefact.stage,
            "fingerprint": artefact.fingerprint,
            "commit": commit,
            "commits": recorded_commits(artefact.folder) or [commit],
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            **content,
            "inputs": {role: _record(artefact, source) for role, source in inputs.items()},
            "metrics": dict(metrics),
            "environment": dict(environment),
        },
    )
    return open_artefact(artefact.folder)


def _record(artefact: Artefact, source: Artefact) -> dict[str, str]:
    folder = os.path.relpath(source.folder.resolve(), artefact.folder.resolve())
    return {"stage": source.stage, "fingerprint": source.fingerprint, "folder": folder}
