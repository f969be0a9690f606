"""`r1 lineage`: the tree of an artefact, one line for what is none, and a reader who leaves early."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from r1_lightning.artefacts import store
from r1_lightning.run.commands.lineage import main
from tests.architecture.house import ROOT


def make(root: Path) -> Path:
    artefact = store.create(root, "pretrain", "tiny", "sums", "a" * 64)
    artefact.weights_path.write_bytes(b"x")
    return store.complete(artefact, "c" * 40, {}, {}, {}).folder


def test_it_prints_the_tree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make(tmp_path)
    monkeypatch.setattr(sys, "argv", ["r1 lineage", str(folder)])
    assert main() == 0
    out = capsys.readouterr().out
    assert out.startswith("pretrain  aaaaaaaaaa  commit cccccccccccc  ") and out.endswith(f"  {folder}\n")


def test_what_is_no_artefact_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["r1 lineage", str(tmp_path)])
    assert main() == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and str(tmp_path) in error and error.count("\n") == 1


def test_a_reader_may_leave(tmp_path: Path) -> None:
    """`| head -1`, at its quickest: nobody reads the pipe when the tree is written."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, str(ROOT / "scripts" / "lineage.py"), str(make(tmp_path))]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": ""}
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, env=environment, timeout=120)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")
