"""The file of a resume checkpoint: written with a check sum, read only if it is whole, without running code.

It is torch's own format, a zip archive with a record for each tensor. torch's check sums cover the records, but not the directory
that says where each lies: one changed byte there, and another tensor is read without a word. So the file's SHA-256 follows as the
comment of the archive, which torch passes over.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import torch

from r1_lightning.artefacts.leftovers import LAST, PREVIOUS
from r1_lightning.artefacts.store import digits_of
from r1_lightning.types.errors import require

MADE_FOR = "made_for"  # key of the digits of its stage's fingerprint
CITED_SHARDS = "shards"  # key of the citation of other processes' files
PIECE_BYTES = 2**20  # read at a time
# A zip archive ends with the length of its comment, in two bytes, and the comment.
NO_COMMENT = b"\0\0"
COMMENT = b"sha256:"


class _Sink:
    """A file for `torch.save` that keeps the system's error, which torch reports as "unexpected pos", and hashes what it writes."""

    def __init__(self, file: IO[bytes], poll: Callable[[], None]) -> None:
        self.file, self.poll = file, poll
        self.error: OSError | None = None
        self.hash = hashlib.sha256()

    def write(self, content: Any) -> int:
        self.poll()
        try:
            written = self.file.write(content)
        except OSError as error:
            self.error = error
            raise
        self.hash.update(content)
        return written

    def flush(self) -> None:
        self.file.flush()


def stream(state: dict[str, Any], path: Path, poll: Callable[[], None] = lambda: None) -> None:
    """Write `state` to `path` in torch's format, one tensor at a time, without building the file in memory; the system's errors.

    The SHA-256 of the file follows as the comment of its archive. `poll`, called before each piece, may raise to end the writing.
    """
    with path.open("wb") as file:
        sink = _Sink(file, poll)
        try:
            torch.save(state, sink)  # type: ignore[arg-type]  # all that it calls are `write` and `flush`
        except RuntimeError as error:
            if sink.error is None:
                raise
            raise sink.error from error
        comment = _comment(sink.hash)
        file.seek(-len(NO_COMMENT), os.SEEK_END)
        file.write(len(comment).to_bytes(2, "little") + comment)


def _comment(found: Any) -> bytes:
    return COMMENT + str(found.hexdigest()).encode("ascii")


def checkpoint_to_resume(folder: Path, say: Callable[[str], None] = print) -> Path | None:
    """Return the newest whole checkpoint in `folder`, or None; `say` gets a line if it is not the last one.

    Raises `InvalidInput` naming the file if all are truncated or damaged, or if the newest whole one is of another configuration.
    """
    paths = [path for path in (folder / LAST, folder / PREVIOUS) if path.exists()]
    if not paths:
        return None
    for path in paths:
        if (
            is_whole(path)
            and (state := _read(path)) is not None
            and (path == paths[-1] or _shards_are_there(state, folder))
        ):
            found, expected = state.get(MADE_FOR), digits_of(folder.parent)
            other = f"it is of another configuration (fingerprint {found}, this run's is {expected}); remove it to start anew"
            require(not found or not expected or found == expected, "checkpoint", str(path), other)
            if path != paths[0]:
                before = f"going on from the one before it, {path.name}, of step {state.get('global_step')}"
                say(f"checkpoint: {paths[0]} is truncated or damaged, or lacks a shard; {before}")
            return path
    others = f", and so is {paths[1]}; remove both" if paths[1:] else "; remove it"
    allowed = f"the file is truncated or damaged{others} to start this stage anew"
    require(False, "checkpoint", str(paths[0]), allowed)
    return None


def _shards_are_there(state: Mapping[str, Any], folder: Path) -> bool:
    """True if the files of other processes that the state cites (`stages/sharded_state.py`) lie in `folder` at their sizes.

    Their hashes are compared when they are loaded; so is a missing one of the last checkpoint that is left, in a line of its own.
    """
    cited = state.get(CITED_SHARDS) or {}
    place = folder / Path(str(cited.get("folder"))).name
    paths = [(place / Path(str(file["file"])).name, file["bytes"]) for file in cited.get("files", ())]
    return all(path.is_file() and path.stat().st_size == size for path, size in paths)


def is_whole(path: Path) -> bool:
    """True if the checkpoint at `path` has the check sum that it was written with; without one, its archive must be intact."""
    size = len(_comment(hashlib.sha256()))
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END) - size
            file.seek(max(0, end))
            comment = file.read()
            if end < len(NO_COMMENT) or not comment.startswith(COMMENT):
                return comment.endswith(NO_COMMENT) and _is_intact(path)
            file.seek(0)
            found, left = hashlib.sha256(), end - len(NO_COMMENT)
            while left and (piece := file.read(min(left, PIECE_BYTES))):
                found.update(piece)
                left -= len(piece)
            is_length = file.read(len(NO_COMMENT)) == size.to_bytes(2, "little")
            found.update(NO_COMMENT)
            return is_length and comment == _comment(found)
    except PermissionError:
        raise
    except OSError:  # the disk cannot read it
        return False


def _is_intact(path: Path) -> bool:
    """True if the check sums of the archive's records are right, which is all that older checkpoints have."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except Exception:  # zipfile raises many kinds of errors for a damaged directory
        return False


def _read(path: Path) -> dict[str, Any] | None:
    """Return the state at `path`, its tensors not read yet (they are mapped); None if torch cannot read it without running code."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except PermissionError:
        raise
    except Exception:  # torch and its unpickler raise many kinds of errors for what they did not write
        return None
    return state if isinstance(state, dict) else None
