"""The command on machines without a GPU or without packages: it says what is missing, ends well and keeps nothing."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import pytest
import torch

from benchmarks.gpu import check as check_module
from benchmarks.gpu import command
from benchmarks.gpu.check import NO_GPU, Part, full_plan, kept, parts_of, run, tiny_plan
from benchmarks.gpu.device import Meter
from benchmarks.gpu.needs import missing
from benchmarks.gpu.report import Row
from tests.architecture.house import ROOT

CPU = Meter(torch.device("cpu"))
# What the known machine with a GPU lacks, or may lack; it has transformers.
LACKING = ("trl", "datasets", "hydra", "omegaconf", "math_verify", "beartype", "pydantic", "transformer_engine")


@pytest.fixture(autouse=True)
def restored():
    """What the command sets for its whole process is set back."""
    loggers = [
        logging.getLogger(name)
        for name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero", "lightning.fabric")
    ]
    levels = [logger.level for logger in loggers]
    fills = torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.utils.deterministic.fill_uninitialized_memory = fills
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_without_a_gpu_every_row_says_so_and_nothing_is_written(no_gpu, tmp_path, capsys):
    assert command.main(["--out", str(tmp_path / "gpu")]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("| pre", "| sam", "| GRPO"))]
    assert len(rows) == 5 and all(f"| not run: {NO_GPU} |" in row for row in rows)
    assert not (tmp_path / "gpu").exists()


def test_the_three_widths_and_the_work_of_the_benchmark():
    plan = full_plan()
    widths = [config.d_model for config in plan.trained]
    assert len(set(widths)) == 3 and max(widths) >= 4096
    size = plan.grpo_size
    assert (size.prompts, size.group_size, size.new_tokens) == (32, 16, 64)
    assert {part.name for part in parts_of(plan, CPU, lambda: None)} == set(command.PARTS)


def test_only_names_one_part(no_gpu, capsys):
    assert command.main(["--only", "sampling"]) == 0
    assert [line[:6] for line in capsys.readouterr().out.splitlines() if NO_GPU in line] == ["| samp"]


@pytest.mark.parametrize("arguments", [["--commit", "main"], ["--rehearse", "--out", "x"]])
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


def test_a_part_without_memory_is_not_run_and_one_that_fails_says_so(capsys):
    def no_memory():
        raise torch.OutOfMemoryError("60 GiB")

    def broken():
        raise ValueError("first line\nsecond line")

    full = run(Part("grpo", "work", no_memory), "", CPU)
    failed = run(Part("grpo", "work", broken), "", CPU)
    assert (full.not_run, full.failed) == ("out of memory", False)
    assert (failed.not_run, failed.failed) == ("failed: ValueError: first line", True)
    assert "second line" in capsys.readouterr().err


def test_a_failure_is_the_exit_code_and_the_other_parts_go_on(monkeypatch, capsys):
    def broken():
        raise ValueError("broken")

    both = [Part("grpo", "a", broken), Part("sampling", "b", lambda: Row("sampling", "b", "tokens/s", 7.0))]
    monkeypatch.setattr(check_module, "parts_of", lambda plan, meter, limits: both)
    assert command.main(["--rehearse"]) == 1
    out = capsys.readouterr().out
    assert "| a | not run: failed: ValueError: broken |" in out and "| b | 7 tokens/s |" in out


def test_rows_of_a_cpu_are_never_kept(tmp_path):
    ran = [Row("sampling", "b", "tokens/s", 7.0)]
    assert kept(ran, CPU, tiny_plan(), tmp_path / "gpu", "0123abc") == "nothing ran on a GPU, so nothing is written"
    assert not (tmp_path / "gpu").exists()


def test_rows_of_a_gpu_are_kept_if_any_ran(tmp_path, monkeypatch):
    gpu = Meter(torch.device("cuda"))
    monkeypatch.setattr(check_module, "hardware_of", lambda device: {"device": "NVIDIA H200"})
    monkeypatch.setattr(check_module, "_measured", lambda plan, meter: (7e14, 4e12))
    skipped = Row("grpo", "a", not_run="out of memory")
    assert "nothing is written" in kept([skipped], gpu, tiny_plan(), tmp_path, "0123abc")
    kept([skipped, Row("sampling", "b", "tokens/s", 7.0)], gpu, tiny_plan(), tmp_path, "0123abc")
    (path,) = tmp_path.glob("*.json")
    assert json.loads(path.read_text())["hardware"]["copied_bytes_per_s"] == 4e12


@pytest.mark.slow
def test_all_but_trls_side_runs_without_what_the_known_machine_lacks():
    """A fresh process in which those packages cannot be imported rehearses everything; TRL's side says what it misses."""
    code = (
        "import sys\n"
        "from importlib.abc import MetaPathFinder\n"
        f"lacking = {LACKING!r}\n"
        "class Absent(MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in lacking:\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "from benchmarks.gpu import command, needs\n"
        "found = needs.find_spec\n"
        "needs.find_spec = lambda name: None if name in lacking else found(name)\n"
        "sys.exit(command.main(['--rehearse']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ") and "BF16" in line]
    assert len(rows) == 3 and not any("| not run" in row for row in rows)
    assert "TRL not run: trl, datasets, hydra, omegaconf not installed" in rows[-1]
