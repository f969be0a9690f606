"""Building the native decoder: what it refuses, what decides the library's name, and that nothing is built twice."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from r1_lightning.rollout import native_build
from r1_lightning.rollout.native_build import FLAGS, NotBuilt, build, cache_folder, compiler, library_path
from tests.architecture.house import FILE_LINES


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(native_build.CACHE, str(tmp_path))
    return cache_folder()


def compiler_that(tmp_path: Path, does: str) -> str:
    """A compiler that takes the arguments of g++ and does something else."""
    path = tmp_path / "g++"
    path.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo fake 1 && exit\n{does}\n', encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def test_the_folder_is_this_users_alone(folder: Path, tmp_path: Path) -> None:
    assert folder == tmp_path / "r1_lightning" / "native"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_a_folder_that_others_can_write_to_is_refused(folder: Path, mode: int) -> None:
    folder.chmod(mode)
    with pytest.raises(NotBuilt, match="must be this user's, and nobody else's to write to"):
        cache_folder()


def test_a_folder_that_others_could_exchange_is_refused(folder: Path) -> None:
    folder.parent.chmod(0o777)
    with pytest.raises(NotBuilt, match="r1_lightning must be this user's, and nobody else's to write to"):
        cache_folder()


def test_a_link_and_another_users_folder_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.rmdir()
    elsewhere = folder.parent / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    folder.symlink_to(elsewhere)
    with pytest.raises(NotBuilt, match="must be this user's"):
        cache_folder()
    folder.unlink()
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(NotBuilt, match="must be this user's"):
        cache_folder()


def test_a_relative_cache_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(native_build.CACHE, "here")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "r1_lightning" / "native"


def test_everything_that_decides_the_code_is_in_the_name(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = (compiler_that(tmp_path, "exit 0"), *FLAGS)
    names = {library_path(folder, command).name, library_path(folder, (*command, "-g")).name}
    monkeypatch.setattr(native_build, "processor", lambda: "another")
    names.add(library_path(folder, command).name)
    source = tmp_path / "decode.cpp"
    source.write_text("int x;", encoding="utf-8")
    monkeypatch.setattr(native_build, "SOURCE", source)
    names.add(library_path(folder, command).name)
    Path(command[0]).write_text("#!/bin/sh\necho fake 2\n", encoding="utf-8")
    names.add(library_path(folder, command).name)
    assert len(names) == 5
    assert library_path(folder, command) == library_path(folder, command)


def test_a_compiler_that_fails_says_why_in_one_line(folder: Path, tmp_path: Path) -> None:
    bad = compiler_that(tmp_path, "echo note >&2; echo 'decode.cpp:3: error: no such thing' >&2; exit 1")
    with pytest.raises(NotBuilt, match=r"failed: decode.cpp:3: error: no such thing$"):
        build(folder / "decode-x.so", (bad, *FLAGS))
    assert list(folder.iterdir()) == []  # nothing half done stays


def test_a_compiler_that_never_ends_is_ended(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_build, "BUILD_S", 0.2)
    with pytest.raises(NotBuilt, match="did not end well"):
        build(folder / "decode-x.so", (compiler_that(tmp_path, "exec sleep 60"), *FLAGS))


def test_what_is_built_is_private_and_in_place(folder: Path, tmp_path: Path) -> None:
    writes = 'while [ "$1" != -o ]; do shift; done; echo library > "$2"'
    build(folder / "decode-x.so", (compiler_that(tmp_path, writes), *FLAGS))
    assert [path.name for path in folder.iterdir()] == ["decode-x.so"]
    assert stat.S_IMODE((folder / "decode-x.so").stat().st_mode) == 0o700


def test_no_compiler_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("CXX", "nothing-like-it")
    with pytest.raises(NotBuilt, match="there is no C"):
        compiler()


def test_a_library_is_built_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The place of the library holds one: it is loaded, and no compiler runs."""
    monkeypatch.setattr(native_build, "_loaded", lambda path: path)
    monkeypatch.setattr(native_build, "build", lambda path, command: path.write_bytes(b"built"))
    native_build.library.cache_clear()
    first: object = native_build.library()
    monkeypatch.setattr(native_build, "build", lambda path, command: pytest.fail("built twice"))
    native_build.library.cache_clear()
    assert native_build.library() == first
    native_build.library.cache_clear()


def test_the_source_fits_one_sitting() -> None:
    lines = native_build.SOURCE.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= FILE_LINES
    assert max(map(len, lines)) <= 132
    assert not any("fast-math" in flag for flag in FLAGS)
