"""Locks that are files, for file systems without flock: made in one step (O_EXCL), with the holder's process and machine in them.

    .lock.held:  4711 node7 9f0c...      process, machine, and a word that tells this lock from every other

A killed process leaves its file behind. It is stale, and taken over, once its process is gone (seen on the same machine), or once
nobody has touched it for `STALE_S` seconds (from another machine; a holder touches it every `TOUCH_S`). A holder that is alive on
the same machine, however long it has been stopped, keeps its lock.
"""

from __future__ import annotations

import os
import secrets
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from r1_lightning.artefacts.files import output_folder

HELD = ".held"  # put after the lock's name
TOUCH_S = 20.0
STALE_S = 300.0  # fifteen missed touches: a machine that is only slow, or a file server that is, keeps its lock

_said: set[Path] = set()


def try_file(folder: Path, name: str) -> str | None:
    """Make the lock's file. None: this process has the lock; else the text of who holds it."""
    _say_once(folder)
    path = folder / f"{name}{HELD}"
    while True:
        with output_folder(folder):
            try:
                descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
            except FileExistsError:
                descriptor = None
        if descriptor is not None:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(f"{os.getpid()} {socket.gethostname()} {secrets.token_hex(8)}")
            return None
        try:
            text = path.read_text(encoding="utf-8")
            stale = _is_stale(path, text)
        except FileNotFoundError:  # let go of between the two looks
            continue
        if not stale:
            return text
        _take_away(path, text)


@contextmanager
def held_file(folder: Path, name: str) -> Iterator[None]:
    """Keep a lock that `try_file` has made, touched now and then, and remove it in the end."""
    path, over = folder / f"{name}{HELD}", threading.Event()

    def touch() -> None:
        while not over.wait(TOUCH_S):
            with suppress(OSError):
                os.utime(path)

    toucher = threading.Thread(target=touch, daemon=True, name=f"lock {path.name}")
    toucher.start()
    try:
        yield
    finally:
        over.set()
        toucher.join()
        path.unlink(missing_ok=True)


def is_stale(path: Path) -> bool:
    """Whether the process that made the lock at `path` is gone; true where there is none."""
    try:
        return _is_stale(path, path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return True


def _is_stale(path: Path, text: str) -> bool:
    """Whether the process that made the lock is gone."""
    words = text.split()
    if len(words) == 3 and words[1] == socket.gethostname() and words[0].isdigit():
        return not _is_alive(int(words[0]))
    return _age_s(path) > STALE_S  # another machine's; or not written yet, or cut off by a kill in between


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True


def _age_s(path: Path) -> float:
    """Seconds since the file was touched, by the file server's clock: machines need not agree on the time."""
    probe = path.with_name(f"{path.name}.{os.getpid()}.now")
    with output_folder(path.parent):
        probe.touch()
    try:
        return probe.stat().st_mtime - path.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def _take_away(path: Path, text: str) -> None:
    """Remove a stale lock; one that somebody else has made in its place meanwhile is put back."""
    aside = path.with_name(f"{path.name}.{secrets.token_hex(8)}.stale")
    with suppress(FileNotFoundError):
        os.rename(path, aside)
        if aside.read_text(encoding="utf-8") != text:
            with suppress(FileExistsError):
                os.link(aside, path)
        aside.unlink()


def _say_once(folder: Path) -> None:
    if folder.parent not in _said:  # the folders of a root are on one file system
        _said.add(folder.parent)
        print(
            f"note: the file system of {folder} has no locks (flock); files named *{HELD} stand in for them",
            file=sys.stderr,
            flush=True,
        )
