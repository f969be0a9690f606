"""Locks on folders, held by the kernel (flock): a killed process leaves none behind.

One artefact is made by one process, or by several that each have a share of it: `locked` refuses a second process with the same
work, or has it wait, and `in_turn` lets processes with different shares through one after the other. A file system without flock
(Lustre mounted without it, Windows) gets locks that are files (`lock_files`).
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from r1_lightning.artefacts.files import output_folder, unwritable
from r1_lightning.artefacts.lock_files import HELD, held_file, is_stale, try_file
from r1_lightning.types.errors import InvalidInput

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
TURN = ".turn"
# What flock answers where the file system has no such locks.
NO_FLOCK = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP)
POLL_S = 0.2  # between two looks at a lock that somebody else holds


class _Busy(Exception):
    """Another process holds the lock; the message says which."""


@contextmanager
def locked(folder: Path, name: str = LOCK, waiting: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold the folder's lock: two processes never do the same work on one artefact at once.

    The second gets `InvalidInput` at once. With `waiting` it waits instead, and calls that with the holder ("pid 7") before
    every look. The lock is the kernel's (flock) where there is one, so a killed process leaves none behind.
    """
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(_held(folder, name))
                break
            except _Busy as busy:
                if waiting is None:
                    raise InvalidInput(
                        f"artefact={str(folder)!r} is not allowed: another process ({busy}) "
                        "is training it right now; wait for it, or stop it"
                    ) from busy
                waiting(str(busy))
            time.sleep(POLL_S)
        yield


def is_held(folder: Path, name: str = LOCK) -> bool:
    """Whether a process holds the folder's lock now; nothing is written."""
    if (folder / f"{name}{HELD}").exists():
        return not is_stale(folder / f"{name}{HELD}")
    try:
        with open(folder / name, encoding="utf-8") as file:
            _flock(file.fileno(), wait=False)  # let go of when the file is closed
            return False
    except BlockingIOError:
        return True
    except OSError:
        return False


@contextmanager
def in_turn(folder: Path) -> Iterator[None]:
    """Wait for the other processes that share the work in `folder`: what is inside takes them a moment each."""
    with output_folder(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileNotFoundError as error:  # some file systems (/proc) answer so where no folder can be made
            raise unwritable(folder, errno.ENOENT, str(error)) from error
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(_held(folder, TURN, wait=True))
                break
            except _Busy:  # a lock that is a file cannot be waited for
                time.sleep(POLL_S / 10)
        yield


@contextmanager
def _held(folder: Path, name: str, wait: bool = False) -> Iterator[None]:
    """Hold the lock `name`; `_Busy` at once where somebody else does, unless the kernel can `wait` for it."""
    with output_folder(folder):
        (folder / name).touch()
    with open(folder / name, "r+", encoding="utf-8") as file:
        try:
            has_flock = _flock(file.fileno(), wait)
        except BlockingIOError as error:
            raise _Busy(holder(file.read())) from error
        if not has_flock:
            other = try_file(folder, name)
            if other is not None:
                raise _Busy(holder(other))
            with held_file(folder, name):
                yield
            return
        with output_folder(folder):
            file.truncate(0)
            file.write(f"{os.getpid()} {socket.gethostname()}")
            file.flush()
        yield


def _flock(descriptor: int, wait: bool) -> bool:
    """Take the kernel's lock; False where the file system has none, `BlockingIOError` where another process holds it."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in NO_FLOCK:
            return False
        raise
    return True


def holder(text: str) -> str:
    """Who wrote a lock's text: "pid 7", and where if it is another machine."""
    pid, _, host = text.strip().partition(" ")
    host = host.partition(" ")[0]
    return f"pid {pid}" if host in ("", socket.gethostname()) else f"pid {pid} on {host}"
