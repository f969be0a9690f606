"""Lock files, for file systems without flock: created in one step (O_EXCL), with the holder's process and machine in them.

    .lock.held:  4711 node7 9f0c...      process id, host name, and a random token unique to this lock

A killed process leaves its lock file behind. Another process takes the lock over once the holder is gone (on the same machine), or
once nobody has touched the file for `STALE_S` seconds (on another machine; the holder touches it every `TOUCH_S`). A holder that is
alive on the same machine keeps its lock, however long it has been stopped.
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

HELD = ".held"  # suffix after the lock's name
TOUCH_S = 20.0
STALE_S = 300.0  # fifteen missed touches: a machine that is only slow, or a file server that is, keeps its lock

_said: set[Path] = set()


def try_file(folder: Path, name: str) -> str | None:
    """Try to create the lock file. Returns None if this process now holds the lock, else the text of the holder's file."""
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
        except FileNotFoundError:  # the holder released it after our open failed
            continue
        if not stale:
            return text
        _take_away(path, text)


@contextmanager
def held_file(folder: Path, name: str) -> Iterator[None]:
    """Hold a lock that `try_file` made: touch its file every `TOUCH_S` seconds, and remove it at the end."""
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
    """True if the process that made the lock at `path` is gone, or if there is no such file."""
    try:
        return _is_stale(path, path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return True


def _is_stale(path: Path, text: str) -> bool:
    """True if the process that made the lock is gone."""
    words = text.split()
    if len(words) == 3 and words[1] == socket.gethostname() and words[0].isdigit():
        return not _is_alive(int(words[0]))
    return _age_s(path) > STALE_S  # held on another machine, or its text is not written yet or was cut off by a kill


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # a process of another user: it is there, but we may not signal it
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
    """Remove a stale lock file; if another process has replaced it meanwhile, put that new one back."""
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
