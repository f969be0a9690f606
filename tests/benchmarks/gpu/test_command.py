"""The command on machines without a GPU or without packages: it says what is missing, ends well and keeps nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

from benchmarks.gpu import check as check_module
from benchmarks.gpu import command
from benchmarks.gpu.needs import missing
from benchmarks.gpu.office import Greeting, Listed
from benchmarks.gpu.report import Row
from tests.architecture.house import ROOT

# What the known machine with a GPU lacks, or may lack; it has transformers.
LACKING = ("trl", "datasets", "hydra", "omegaconf", "math_verify", "beartype", "pydantic", "transformer_engine")
GRPO, SAMPLING = Listed("grpo", "a", 20.0), Listed("sampling", "b", 10.0)


class Told:
    """A worker that gives the rows that it was told to give."""

    def __init__(self, rows, cannot=""):
        self.rows, self.cannot = rows, cannot

    def greeting(self, limit_s):
        return Greeting([GRPO, SAMPLING], {"device": "cpu"}, self.cannot)

    def measure(self, number, limit_s, take):
        for row in self.rows[number]:
            take(row)

    def close(self):
        pass


@pytest.fixture
def told(monkeypatch):
    def tell(*arguments, **named):
        monkeypatch.setattr(check_module.WorkerProcess, "of", lambda plan: Told(*arguments, **named))

    return tell


def test_without_a_gpu_every_row_says_so_and_nothing_is_written(told, tmp_path, capsys):
    told([], cannot="no CUDA device")
    assert command.main(["--out", str(tmp_path / "gpu")]) == 0
    out = capsys.readouterr().out
    assert "| a | not run: no CUDA device |" in out and "| b | not run: no CUDA device |" in out
    assert out.endswith("\nnothing ran on a GPU, so nothing is written\n")
    assert not (tmp_path / "gpu").exists()


def test_only_names_some_parts(told, capsys):
    told([[Row("grpo", "a", "s/step", 1.0)], [Row("sampling", "b", "tokens/s", 7.0)]])
    assert command.main(["--rehearse", "--only", "sampling"]) == 0
    out = capsys.readouterr().out
    assert "| b | 7 tokens/s |" in out and "| a |" not in out
    assert command.main(["--rehearse", "--only", "sampling", "grpo"]) == 0
    assert "| a | 1.000 s/step |" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--commit", "main"], ["--rehearse", "--out", "x"], ["--seconds", "0"]])
def test_bad_input_is_one_line_and_exit_code_2(arguments, capsys):
    assert command.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --") and error.count("\n") == 1


def test_what_is_missing_is_named(monkeypatch, capsys):
    assert missing(("torch", "json")) == ""
    assert missing(("torch", "no_such_a", "no_such_b")) == "no_such_a, no_such_b not installed"
    monkeypatch.setattr(command, "NEEDS", ("no_such_a",))
    assert command.main([]) == 0
    assert capsys.readouterr().out == "every part: not run: no_such_a not installed\n"


def test_a_failure_is_the_exit_code_and_the_other_parts_go_on(told, capsys):
    broken = Row("grpo", "a", not_run="failed: ValueError: broken", failed=True)
    told([[broken], [Row("sampling", "b", "tokens/s", 7.0)]])
    assert command.main(["--rehearse"]) == 1
    out = capsys.readouterr().out
    assert "| a | not run: failed: ValueError: broken |" in out and "| b | 7 tokens/s |" in out


@pytest.mark.slow
def test_all_but_trls_side_runs_without_what_the_known_machine_lacks(tmp_path):
    """The whole command, in processes in which those packages cannot be found; TRL's side says what it misses."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        f"lacking = {LACKING!r}\n"
        "class Absent:\n"
        "    def find_spec(name, path=None, target=None):\n"
        "        if name.split('.')[0] in lacking:\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Absent)\n"
        "import importlib.util\n"
        "found = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name in lacking else found(name, *rest)\n"
    )
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from benchmarks.gpu import command\n"
    done = subprocess.run(
        [sys.executable, "-c", code + "sys.exit(command.main(['--rehearse', '--seconds', '500']))"],
        cwd=ROOT,
        env={"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")][1:]
    assert len(rows) == 16 and not any("not run" in row for row in rows[:-1]), done.stdout
    assert "TRL not run: trl, datasets, hydra, omegaconf not installed" in rows[-1]
