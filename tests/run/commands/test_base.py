"""What commands with `key=value` share: keys of their own, one line for bad input, a traceback for a defect."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

import pytest

from r1_lightning.run.commands.base import own_keys, parse_int, run_command, task_of
from r1_lightning.tasks.arithmetic import ArithmeticTask
from r1_lightning.types.errors import InvalidInput
from tests.architecture.house import ROOT


def test_own_keys_are_taken_out_and_overrides_stay_in_order() -> None:
    own, overrides = own_keys(["task=a", "count=7", "x.count=1", "from=", "+y=2"], {"count": "3", "from": "test"})
    assert own == {"count": "7", "from": ""}
    assert overrides == ["task=a", "x.count=1", "+y=2"]


def test_a_whole_number_by_hand() -> None:
    assert parse_int("count", "12", 1, 20) == 12
    for text, said in (
        ("0", "count=0"),
        ("21", "count=21"),
        ("x", "count='x'"),
        ("-1", "count='-1'"),
        ("", "count=''"),
    ):
        with pytest.raises(InvalidInput, match=said):
            parse_int("count", text, 1, 20)
    with pytest.raises(InvalidInput, match="count='123456789'"):  # nine digits
        parse_int("count", "123456789", 1, 10**10)


def test_a_task_comes_with_its_configuration_and_is_checked() -> None:
    config, source = task_of(["task=arithmetic", "seed=7"])
    assert config.seed == 7 and isinstance(source, ArithmeticTask)
    with pytest.raises(InvalidInput, match=r"trainer\.max_time="):
        task_of(["+trainer.max_time=x"])


def run(monkeypatch: pytest.MonkeyPatch, error: Exception | None = None, typed: Sequence[str] = ("a=1", "b")) -> int:
    def do(arguments: Sequence[str]) -> str:
        if error is not None:
            raise error
        return " and ".join(arguments)

    monkeypatch.setattr(sys, "argv", ["command", *typed])
    return run_command("What it is.\n", "usage: command", do)


def test_what_it_prints(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch) == 0 and capsys.readouterr().out == "a=1 and b\n"
    assert run(monkeypatch, typed=["a", "--help"]) == 0 and run(monkeypatch, typed=[]) == 2
    assert capsys.readouterr().out == "What it is.\n\nusage: command\n" * 2


def test_bad_input_is_one_line_however_deep_and_a_defect_is_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outer = ValueError("outer")
    outer.__cause__ = InvalidInput("x=1 is\n not allowed")
    for error in (InvalidInput("x=1 is\n not allowed"), outer):
        assert run(monkeypatch, error) == 2
        assert capsys.readouterr().err == "error: x=1 is not allowed\n"
    with pytest.raises(ValueError, match="ours"):
        run(monkeypatch, ValueError("ours"))


def test_a_reader_may_leave() -> None:
    """`| head -1`: the pipe is closed before the text has been written."""
    code = "import sys; from r1_lightning.run.commands.base import run_command; "
    code += "sys.exit(run_command('', '', lambda _: 'x\\n' * 10**6))"
    command = f'"{sys.executable}" -c "{code}" typed | head -1; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "x\n", "")


@pytest.mark.slow
def test_a_reader_may_leave_before_a_short_text() -> None:
    """Which the interpreter would otherwise write when it ends, with a complaint and another exit code."""
    reading, writing = os.pipe()
    os.close(reading)
    code = "import sys; from r1_lightning.run.commands.base import run_command; sys.exit(run_command('', '', lambda _: 'x'))"
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-c", code, "typed"]
    done = subprocess.run(
        command, cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True, env=buffered, timeout=120
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")
