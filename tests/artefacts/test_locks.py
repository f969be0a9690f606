"""Locks between processes: refused, or let through one after the other (see also test_store.py)."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from r1_lightning.artefacts.locks import exclusive_lock, locked
from r1_lightning.types.errors import InvalidInput

ROUNDS = 40


def _count_up(folder: Path) -> None:
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


def test_locks_of_two_names_do_not_exclude_each_other(tmp_path: Path) -> None:
    with locked(tmp_path, ".lock-0-of-2"), locked(tmp_path, ".lock-1-of-2"), exclusive_lock(tmp_path):
        again = locked(tmp_path, ".lock-0-of-2")
        with pytest.raises(InvalidInput, match="another process"):
            again.__enter__()
