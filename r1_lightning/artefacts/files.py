"""Atomic file writes: a kill, a full disk or a read-only folder damages no file and gives a one-line error.

A file is written under a temporary name in its own folder, synced to disk (fsync) and renamed. A reader sees the old file or the
complete new one, never a mixture. `output_folder` turns the operating system's errors into one line.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from r1_lightning.types.errors import InvalidInput

# Reasons for a failed write, by errno.
FOLDER_ERRORS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "it is read-only",
    errno.EACCES: "permission to write is denied",
    errno.EPERM: "permission to write is denied",
    errno.ENOTDIR: "a part of its path is a file",
    errno.ENAMETOOLONG: "its path is too long",
    errno.ELOOP: "its path has a loop of links",
    errno.EEXIST: "a file stands in its place",
    errno.EFBIG: "a file is larger than the limit for one (ulimit -f)",
    errno.EIO: "the disk reports an error",
    errno.ESTALE: "the file system has gone away",
    errno.ENODEV: "the file system has gone away",
    errno.ENXIO: "the file system has gone away",
    errno.ENOTCONN: "the file system has gone away",
    errno.EHOSTDOWN: "the file system has gone away",
    errno.ETIMEDOUT: "the file system does not answer",
}
GONE = "it is no longer there (was it removed, or its disk unmounted?)"
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def output_folder(folder: Path) -> Iterator[None]:
    """Turn an `OSError` that says `folder` cannot be written (full, read-only, a file in the way) into `InvalidInput`.

    An error that names only files outside `folder` is not about the output and passes through; but a full disk is always
    reported, because libraries write a file elsewhere first (below TMPDIR) and then move it here.
    """
    try:
        yield
    except OSError as error:
        named = (error.filename, error.filename2)
        places = [Path(place) for place in named if isinstance(place, (str, os.PathLike))]
        outside = bool(places) and not any(_related(place, folder) for place in places)
        detail = " ".join(str(error).split())
        if error.errno in DISK_FULL and outside:
            raise InvalidInput(
                f"the output folder {folder} cannot be written: {FOLDER_ERRORS[error.errno]} where temporary files go "
                f"({detail}); make room there, or choose another place with TMPDIR=FOLDER"
            ) from error
        is_gone = error.errno == errno.ENOENT and bool(places) and not folder.exists()
        if error.errno is None or (error.errno not in FOLDER_ERRORS and not is_gone) or outside:
            raise
        raise unwritable(folder, error.errno, detail) from error


@contextmanager
def input_folder(folder: Path) -> Iterator[None]:
    """Turn any `OSError` raised while reading `folder` (no permission, too long a name) into `InvalidInput`."""
    try:
        yield
    except OSError as error:
        detail = " ".join(str(error).split())
        raise InvalidInput(
            f"the folder {folder} cannot be read: {detail}; choose another with paths.root=FOLDER"
        ) from error


def unwritable(folder: Path, number: int, detail: str) -> InvalidInput:
    """Return the error for an output folder in which a write failed with errno `number`."""
    why = GONE if number == errno.ENOENT and not folder.exists() else FOLDER_ERRORS.get(number, "the system refuses")
    return InvalidInput(
        f"the output folder {folder} cannot be written: {why} ({detail}); "
        "make room, or choose another with paths.root=FOLDER"
    )


def _related(path: Path, folder: Path) -> bool:
    """True if `path` is `folder`, lies in it, or is one of its parents (mkdir's error names the parent)."""
    path, folder = Path(os.path.abspath(path)), Path(os.path.abspath(folder))
    return path == folder or folder in path.parents or path in folder.parents


@contextmanager
def replacing(path: Path, former: Path | None = None) -> Iterator[Path]:
    """Yield a temporary path beside `path`; after the block, fsync the file and rename it to `path`.

    What stood at `path` is kept at `former`, if that is given: the new file is on disk by then. A kill between both renames leaves
    `former` alone.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with output_folder(path.parent):
        try:
            yield temporary
            _fsync(temporary)
            if former is not None and path.exists():
                os.replace(path, former)
            os.replace(temporary, path)
            _fsync(path.parent)  # else the rename itself may be lost in a power cut
        except BaseException:
            with suppress(OSError):  # the error that led here says what is wrong
                temporary.unlink(missing_ok=True)
            raise


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write `path` (UTF-8) atomically; `InvalidInput` names its folder if that cannot be written."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write `value` as readable JSON, atomically. NaN and infinity become null: strict JSON has neither."""
    write_text(path, json.dumps(strict(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def strict(value: Any) -> Any:
    """Return `value` for strict JSON: mappings and lists copied, keys as text, NaN and infinity as None."""
    if isinstance(value, Mapping):
        return {str(key): strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [strict(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, as hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
