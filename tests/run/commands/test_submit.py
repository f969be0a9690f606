"""The command line of `r1 submit`: help, what it refuses, and status without torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from r1_lightning.run.commands.submit import main


def test_help_and_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for words, code in ((["--help"], 0), ([], 2)):
        monkeypatch.setattr(sys, "argv", ["r1 submit", *words])
        assert main() == code
        out = capsys.readouterr().out
        assert out.splitlines()[-1].startswith("usage: r1 submit [-m] stage=NAME") and "r1 submit status" in out


def test_bad_input_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["r1 submit", "stage=pretrain", "launcher.nodes=0"])
    monkeypatch.chdir(tmp_path)
    assert main() == 2
    assert (
        capsys.readouterr().err == "error: launcher.nodes=0 is not allowed: it must be a whole number of at least 1\n"
    )


def test_status_answers_without_torch(tmp_path: Path) -> None:
    program = (
        "import sys; sys.argv = ['r1 submit', 'status', sys.argv[1]]\n"
        "from r1_lightning.run.commands.submit import main\n"
        "assert main() == 0 and 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
