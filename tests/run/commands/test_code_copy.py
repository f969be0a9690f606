"""The copied code is that of the checkout, says at which commit, starts, and is shared by what has the same content."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from r1_lightning import __version__
from r1_lightning.artefacts import lineage
from r1_lightning.run.commands import code_copy
from r1_lightning.run.commands.code_copy import copy_code, copy_configs
from r1_lightning.types.errors import InvalidInput


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of one file beside its configs/, in place of ours."""
    package = tmp_path / "checkout" / "r1_lightning"
    (package / "inner" / "__pycache__").mkdir(parents=True)
    (package / "__init__.py").write_text("a = 1\n")
    (package / "inner" / "b.py").write_text("b = 1\n")
    (package / "inner" / "__pycache__" / "b.pyc").write_bytes(b"0")
    (package.parent / "configs").mkdir()
    (package.parent / "configs" / "train.yaml").write_text("seed: 0\n")
    monkeypatch.setattr(code_copy, "r1_lightning", SimpleNamespace(__file__=str(package / "__init__.py")))
    monkeypatch.setattr(lineage, "commit", lambda: "c0ffee-dirty")
    return package.parent


def test_the_copy_holds_package_and_configurations(checkout: Path, tmp_path: Path) -> None:
    copy = copy_code(tmp_path / "code")
    files = {str(path.relative_to(copy)) for path in copy.rglob("*") if path.is_file()}
    own = {"commit.txt", "r1.py"}
    assert files == own | {"r1_lightning/__init__.py", "r1_lightning/inner/b.py", "configs/train.yaml"}
    assert (copy / "commit.txt").read_text() == "c0ffee-dirty\n"
    assert [path.name for path in (tmp_path / "code").iterdir()] == [copy.name]


def test_the_same_content_is_copied_once_and_another_beside_it(checkout: Path, tmp_path: Path) -> None:
    first = copy_code(tmp_path / "code")
    assert copy_code(tmp_path / "code") == first
    (checkout / "r1_lightning" / "__init__.py").write_text("a = 2\n")
    second = copy_code(tmp_path / "code")
    assert second != first and (first / "r1_lightning" / "__init__.py").read_text() == "a = 1\n"


def test_an_installed_package_brings_its_configurations(checkout: Path, tmp_path: Path) -> None:
    os.rename(checkout / "configs", checkout / "r1_lightning" / "configs")
    copy = copy_code(tmp_path / "code")
    assert (copy / "r1_lightning" / "configs" / "train.yaml").is_file() and not (copy / "configs").exists()


def test_a_folder_that_cannot_be_written_is_one_line(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidInput, match="cannot be written"):
        copy_code(tmp_path / "file" / "code")


def test_options_are_copied_without_the_runs_beside_them(tmp_path: Path) -> None:
    """What Hydra reads, and nothing else: `--config-dir .` must not copy the runs, whose configurations are options to nobody."""
    own, runs = tmp_path / "own", tmp_path / "own" / "runs"
    for name in ("model/mine.yaml", "runs/grpo-1/config.yaml", "notes.txt"):
        (own / name).parent.mkdir(parents=True, exist_ok=True)
        (own / name).write_text("a: 1\n")
    copy = copy_configs(runs / "slurm" / "code", own, runs)
    assert [str(path.relative_to(copy)) for path in copy.rglob("*") if path.is_file()] == ["model/mine.yaml"]
    assert copy_configs(runs / "slurm" / "code", own, runs) == copy
    (own / "model" / "mine.yaml").write_text("a: 2\n")
    other = copy_configs(runs / "slurm" / "code", own, runs)
    assert other != copy and (copy / "model" / "mine.yaml").read_text() == "a: 1\n"
    assert (copy_configs(tmp_path / "code", own, own) / "runs" / "grpo-1" / "config.yaml").is_file()


def test_a_copy_of_our_own_code_starts(tmp_path: Path) -> None:
    """From another checkout's folder, whose code it must not take."""
    copy = copy_code(tmp_path / "code")
    decoy = tmp_path / "here" / "r1_lightning"
    decoy.mkdir(parents=True)
    (decoy / "__init__.py").write_text("raise SystemExit('the code of the working directory')\n")
    environment = {**os.environ, "PYTHONPATH": f"{copy}{os.pathsep}{Path.cwd()}"}
    words = [sys.executable, str(copy / "r1.py"), "--version"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=decoy.parent, env=environment)
    assert (done.returncode, done.stdout) == (0, f"r1_lightning {__version__}\n"), done.stderr
    assert lineage.commit(copy / "r1_lightning" / "artefacts") == lineage.commit()
