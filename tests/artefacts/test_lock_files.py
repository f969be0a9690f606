"""Locks that are files: one holder at a time, and a lock whose holder is gone is taken over."""

from __future__ import annotations

import errno
import multiprocessing
import os
import socket
from pathlib import Path

import pytest

from r1_lightning.artefacts import lock_files, locks
from r1_lightning.artefacts.locks import exclusive_lock, locked
from r1_lightning.types.errors import InvalidInput

HERE = socket.gethostname()
ROUNDS = 15


@pytest.fixture(params=["ENOSYS", "ENOLCK", "EOPNOTSUPP", "ENOTSUP", "no fcntl"])
def without_flock(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A machine whose file system answers flock so, or that has no such module at all."""

    def flock(*_: object) -> None:
        raise OSError(getattr(errno, request.param), "Function not implemented")

    if request.param == "no fcntl":
        monkeypatch.setattr(locks, "fcntl", None)
    else:
        monkeypatch.setattr(locks.fcntl, "flock", flock)
    return request.param


def test_a_lock_is_held_and_let_go(without_flock: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / without_flock / "run"
    folder.mkdir(parents=True)
    with locked(folder):
        with pytest.raises(InvalidInput, match=f"pid {os.getpid()}"), locked(folder):
            pass
        with locked(folder, ".lock-1-of-2"), exclusive_lock(folder):  # other names are other locks
            pass
    with locked(folder):
        pass
    assert not list(folder.glob("*.held*"))
    assert capsys.readouterr().err.count("has no locks (flock)") == 1  # said once


def test_another_error_of_flock_is_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(locks.fcntl, "flock", flock)
    with pytest.raises(OSError, match="Input/output"), locked(tmp_path):
        pass


def _count_up(folder: Path) -> None:
    locks.fcntl = None
    for _ in range(ROUNDS):
        with exclusive_lock(folder):
            path = folder / "count"
            path.write_text(str(int(path.read_text()) + 1 if path.exists() else 1))


def test_processes_that_take_turns_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_count_up, args=(tmp_path / "new",)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert (tmp_path / "new" / "count").read_text() == str(3 * ROUNDS)


def _die_holding(folder: Path) -> None:
    locks.fcntl = None
    with locked(folder):
        os._exit(9)


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    worker = multiprocessing.get_context("fork").Process(target=_die_holding, args=(tmp_path,))
    worker.start()
    worker.join(60)
    held = tmp_path / ".lock.held"
    assert held.read_text().split()[:2] == [str(worker.pid), HERE]
    assert lock_files.try_file(tmp_path, ".lock") is None
    assert held.read_text().split()[0] == str(os.getpid())


@pytest.mark.parametrize(
    ("text", "age_s", "is_free"),
    [
        ("1 elsewhere 00ff", 10.0, False),  # another machine's, touched just now
        ("1 elsewhere 00ff", 299.0, False),  # 300 s: fifteen touches of 20 s missed
        ("1 elsewhere 00ff", 301.0, True),
        ("{this process} 00ff", 9999.0, False),  # alive here, however long it was stopped
        ("", 10.0, False),  # about to be written
        ("", 301.0, True),  # its writer was killed in between
        ("half of a li", 301.0, True),
    ],
)
def test_which_locks_are_stale(tmp_path: Path, text: str, age_s: float, is_free: bool) -> None:
    text = text.replace(
        "{this process}", f"{os.getpid()} {HERE}"
    )  # here: names of tests must not differ between processes
    held = tmp_path / ".lock.held"
    held.write_text(text)
    now = held.stat().st_mtime
    os.utime(held, (now - age_s, now - age_s))
    assert lock_files.try_file(tmp_path, ".lock") == (None if is_free else text)
    assert {path.name for path in tmp_path.iterdir()} == {".lock.held"}


def test_a_holder_touches_its_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock_files, "TOUCH_S", 0.01)
    assert lock_files.try_file(tmp_path, ".lock") is None
    held = tmp_path / ".lock.held"
    os.utime(held, (0, 0))
    with lock_files.held_file(tmp_path, ".lock"):
        for _ in range(500):
            if held.stat().st_mtime > 0:
                break
            lock_files.threading.Event().wait(0.01)
        assert held.stat().st_mtime > 0
    assert not held.exists()


def test_a_lock_made_by_another_while_a_stale_one_is_taken_away_stays(tmp_path: Path) -> None:
    held = tmp_path / ".lock.held"
    held.write_text("7 elsewhere new")
    lock_files._take_away(held, "7 elsewhere old")
    assert held.read_text() == "7 elsewhere new" and len(list(tmp_path.iterdir())) == 1
