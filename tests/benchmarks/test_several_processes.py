"""The comparison of artefacts of one and of several processes; the runs themselves are `tests/run/test_processes.py`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from benchmarks.gpu.report import RecordFile
from benchmarks.several_processes import STARTERS, command, differences, rows
from benchmarks.what_has_run import PLACES


def _artefact(root: Path, name: str, *values: float) -> None:
    (root / name).mkdir(parents=True)
    save_file({"w": torch.tensor(values)}, root / name / "weights.safetensors")


def test_differences_are_by_artefact_and_an_absent_one_is_an_error(tmp_path: Path) -> None:
    for root, moved in (("one", 0.0), ("two", 0.25)):
        _artefact(tmp_path / root, "pretrain-1", 1.0, 2.0)
        _artefact(tmp_path / root, "grpo-2", 1.0 + moved, 2.0 - 2 * moved)
    assert differences(tmp_path / "one", tmp_path / "two") == {"pretrain-1": 0.0, "grpo-2": 0.5}
    _artefact(tmp_path / "one", "sft-3", 1.0)  # another fingerprint is another name
    with pytest.raises(FileNotFoundError, match="sft-3"):
        differences(tmp_path / "one", tmp_path / "two")


def test_the_record_is_what_readme_s_table_reads(tmp_path: Path) -> None:
    found = rows({"torchrun": {"pretrain-1": 1e-7, "grpo-2": 3e-7}})
    path = RecordFile(tmp_path / "several_processes", {"device": "a CPU"}, "0123456789abcdef").write(found)
    assert path is not None and json.loads(path.read_text())["rows"][0]["value"] == 3e-7
    ((text, name),) = PLACES["several processes"][0](tmp_path)
    assert name == "several_processes" and text.startswith(
        "pre-training and GRPO by two processes with gloo, started by `torchrun`"
    )


def test_commands(tmp_path: Path) -> None:
    assert "trainer.devices=2" not in command("", tmp_path)
    assert [f"paths.root={tmp_path}" in command(starter, tmp_path) for starter in STARTERS] == [True, True]
