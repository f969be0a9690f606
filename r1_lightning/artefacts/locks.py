"""Locks on folders, held by the kernel (flock): a killed process leaves none behind.

One artefact is made by one process, or by several that each make a shard of it. `locked` refuses a second process with the same
work, or makes it wait; `exclusive_lock` lets processes with different shards through one at a time. On a file system without flock
(Lustre mounted without it, Windows) lock files take its place (`lock_files`).
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
# The errors of flock on a file system that has no such locks.
NO_FLOCK = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP)
POLL_S = 0.2  # between two tries to take a lock that another process holds


class _Busy(Exception):
    """Another process holds the lock; the message says which."""


@contextmanager
def locked(folder: Path, name: str = LOCK, waiting: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold the folder's lock, so that two processes never do the same work on one artefact at once.

    The second process gets `InvalidInput` at once. With `waiting` it polls instead, and calls `waiting(holder)`, such as "pid 7",
    after each failed try. The lock is the kernel's (flock) where there is one, so a killed process leaves none behind.
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
    """True if a process holds the folder's lock now. Writes nothing."""
    if (folder / f"{name}{HELD}").is_file():
        return not is_stale(folder / f"{name}{HELD}")
    try:
        if not (folder / name).is_file():  # a pipe in a stranger's folder would wait for a writer
            return False
        with open(folder / name, encoding="utf-8") as file:
            _flock(file.fileno(), wait=False)  # closing the file releases it
            return False
    except BlockingIOError:
        return True
    except OSError:
        return False


@contextmanager
def exclusive_lock(folder: Path) -> Iterator[None]:
    """Hold the lock for short critical sections of processes that make shards of one artefact; waits until it is free."""
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
    """Hold the lock `name`; raises `_Busy` at once if another process does, unless the kernel can `wait` for it."""
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
    """Take the kernel's lock. Returns False if the file system has none; `BlockingIOError` if another process holds it."""
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
    """Return the process named in a lock's text: "pid 7", or "pid 7 on HOST" for another machine."""
    pid, _, host = text.strip().partition(" ")
    host = host.partition(" ")[0]
    return f"pid {pid}" if host in ("", socket.gethostname()) else f"pid {pid} on {host}"
