"""The time that processes worked on a stage, and that of those which were killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from r1_lightning.artefacts import work
from r1_lightning.artefacts.work import Work, timed, work_in


def test_two_processes_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter((10.0, 13.5, 100.0, 101.25))
    monkeypatch.setattr(work.time, "monotonic", lambda: next(clock))
    with pytest.raises(KeyboardInterrupt), timed(tmp_path):
        raise KeyboardInterrupt
    with timed(tmp_path):
        pass
    assert work_in(tmp_path) == Work(3.5 + 1.25)


def test_a_killed_process_is_counted_without_its_time(tmp_path: Path) -> None:
    (tmp_path / work.WORK).write_text("begin\nbegin\nend 2.500\n", encoding="utf-8")
    assert work_in(tmp_path) == Work(2.5, n_unknown=1)


def test_older_artefacts_have_none(tmp_path: Path) -> None:
    assert work_in(tmp_path) is None


def test_a_folder_that_a_refusal_removed_stays_removed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    with timed(folder):
        (folder / work.WORK).unlink()
        folder.rmdir()
    assert not folder.exists()
