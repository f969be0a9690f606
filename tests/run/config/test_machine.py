"""Systems we do not run on are refused in one line, and no character ends a program."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest

from r1_lightning.run.config import machine
from r1_lightning.types.errors import InvalidInput


@pytest.mark.parametrize("platform", ["win32", "cygwin"])
def test_windows_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], platform: str
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    assert machine.set_up() == 2
    err = capsys.readouterr().err
    assert err.startswith("error: this system") and "WSL 2" in err and err.count("\n") == 1


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_others_are_not(monkeypatch: pytest.MonkeyPatch, platform: str) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    assert machine.set_up() == 0


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "cp437", "koi8-r", "utf-8"])
def test_every_character_can_be_written(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    assert machine.set_up() == 0
    print("中文 🙂 ─►", file=stream, flush=True)


def test_the_commands_can_be_imported_where_unix_modules_are_missing(repo_root: object) -> None:
    """On Windows the refusal has to be reached: nothing at the top imports what is not there."""
    code = (
        "import sys\nfor name in ('fcntl', 'resource'): sys.modules[name] = None\n"
        "from r1_lightning.run import cli\nfrom r1_lightning.run.stages import kinds\n"
        "sys.platform = 'win32'\nsys.exit(cli.main(kinds.run_stage))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=str(repo_root), capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 2 and "Traceback" not in ended.stderr, ended.stderr
    assert ended.stderr.splitlines()[-1].startswith("error: this system (win32)")


def _raise(error: Exception) -> int:
    raise error


def test_bad_input_anywhere_in_the_chain_ends_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    wrapped = ValueError("Error in call to target")
    wrapped.__cause__ = InvalidInput("seed=-1 is not allowed:\n it must be at least 0")
    assert machine.run_as_command(lambda: _raise(wrapped)) == 2
    assert capsys.readouterr() == ("", "error: seed=-1 is not allowed: it must be at least 0\n")


def test_a_defect_keeps_its_traceback() -> None:
    with pytest.raises(KeyError):
        machine.run_as_command(lambda: _raise(KeyError("seed")))


@pytest.mark.parametrize("lines", [1, 100_000])
def test_a_closed_pipe_is_a_good_end(lines: int) -> None:
    """One line is still in Python's buffer when `do` returns; many are written while it runs."""
    code = (
        "import sys\nfrom r1_lightning.run.config import machine\n"
        f"sys.exit(machine.run_as_command(lambda: [print('line') for _ in range({lines})] and 0))"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None and running.stderr is not None
        running.stdout.close()  # before anything is written: Python alone takes longer to start
        assert (running.stderr.read(), running.wait(timeout=60)) == ("", 0)


@pytest.mark.parametrize("code", [0, 1, 2])
def test_the_exit_code_is_the_commands(code: int) -> None:
    assert machine.run_as_command(lambda: code) == code


def test_an_unsupported_system_runs_no_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    assert machine.run_as_command(lambda: _raise(AssertionError("it ran"))) == 2
