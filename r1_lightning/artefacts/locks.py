"""Locks on folders, held by the kernel (flock): a killed process leaves none behind.

One artefact is made by one process, or by several that each have a share of it: `locked` refuses a second process with the same
work, `in_turn` lets processes with different shares through one after the other.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from r1_lightning.artefacts.files import output_folder
from r1_lightning.types.errors import InvalidInput

LOCK = ".lock"
TURN = ".turn"


@contextmanager
def locked(folder: Path, name: str = LOCK) -> Iterator[None]:
    """Hold the folder's lock: two processes never do the same work on one artefact at once.

    The second gets `InvalidInput` at once. The lock is the kernel's (flock), so a killed process leaves none behind.
    """
    with output_folder(folder):
        (folder / name).touch()
    with open(folder / name, "r+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InvalidInput(
                f"artefact={str(folder)!r} is not allowed: another process (pid {file.read().strip()}) "
                "is training it right now; wait for it, or stop it"
            ) from error
        with output_folder(folder):
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
        yield


@contextmanager
def in_turn(folder: Path) -> Iterator[None]:
    """Wait for the other processes that share the work in `folder`: what is inside takes them a moment each."""
    with output_folder(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / TURN).touch()
    with open(folder / TURN, "r+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
