"""Atomic writing, and the one line for a folder that refuses."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from r1_lightning.artefacts.files import FOLDER_ERRORS, input_folder, output_folder, replacing, write_json, write_text
from r1_lightning.types.errors import InvalidInput


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(RuntimeError), replacing(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert (tmp_path / "a.txt").read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


def test_the_move_is_the_last_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is visible under the name is whole and was flushed before."""
    events = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (events.append("flush"), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (events.append("move"), replace(a, b)))
    write_text(tmp_path / "a.txt", "new")
    assert events == ["flush", "move", "flush"]


def test_json_is_strict(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": float("nan"), "y": [1, float("inf")], "z": "二"})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": None, "y": [1, None], "z": "二"}


@pytest.mark.parametrize("number", sorted(FOLDER_ERRORS))
def test_a_refusing_folder_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(InvalidInput) as caught:
        write_text(tmp_path / "a.txt", "new")
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)
    assert FOLDER_ERRORS[number] in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_below_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput, match="a part of its path is a file"):
        write_text(tmp_path / "file" / "a.txt", "new")


def test_errors_about_something_else_pass_through(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), output_folder(tmp_path):
        raise PermissionError(errno.EACCES, "denied", "/somewhere/else")
    with pytest.raises(FileNotFoundError), output_folder(tmp_path):
        raise FileNotFoundError(errno.ENOENT, "absent", str(tmp_path / "x"))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_full_elsewhere_names_the_folder_and_tmpdir(tmp_path: Path, number: int) -> None:
    """A library that writes below TMPDIR and then moves: the error's file lies outside the folder."""
    with pytest.raises(InvalidInput, match=r"TMPDIR=FOLDER") as caught, output_folder(tmp_path):
        raise OSError(number, os.strerror(number), "/tmp/abc/xyz")
    assert str(tmp_path) in str(caught.value) and "/tmp/abc/xyz" in str(caught.value)


def test_the_second_name_of_a_move_counts(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="it is read-only"), output_folder(tmp_path):
        raise OSError(errno.EROFS, "Read-only file system", "/tmp/abc/xyz", None, str(tmp_path / "last.ckpt"))


def test_a_folder_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot be read") as caught, input_folder(tmp_path):
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path))
    assert str(tmp_path) in str(caught.value) and "paths.root=" in str(caught.value)
