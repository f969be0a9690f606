"""What is made of runs with vLLM; the runs themselves, on vLLM, in the tier `long`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from benchmarks.gpu.report import RecordFile
from benchmarks.what_has_run import PLACES
from benchmarks.with_vllm import FIELDS, RUNS, STEPS, commands, curve, moved, row_of, write_curves
from r1_lightning.model.precision import AGREEMENT
from tests.support.commands import CONFIGS, ROOT
from tests.support.hf_folders import dense_folder

ROWS = [
    {"step": 0, **dict(zip(FIELDS, (2e-6, 1e-5, 0.5, 0.25), strict=True))},
    {"step": 2, **dict(zip(FIELDS, (3e-6, 9e-5, 0.75, 0.5), strict=True))},
]


def test_a_run_is_told_by_its_worst_rollout() -> None:
    row = row_of("miniature", 4, ROWS, 0.5)
    assert row.part == "GRPO of the miniature, 4 steps" and row.value == 3e-6 and row.beside == "2 rollouts"
    assert row.details == {
        "rollouts": 2,
        "largest change of a weight": 0.5,
        "largest difference of a token": 9e-5,
        "reward of the first rollout": 0.5,
        "reward of the last rollout": 0.75,
    }


def test_rollouts_are_read_from_the_metrics(tmp_path: Path) -> None:
    """The second minibatch of a rollout repeats its numbers; rows of an evaluation have none."""
    (tmp_path / "logs").mkdir()
    lines = [
        "step,train/loss," + ",".join(FIELDS),
        "0,0.1,2e-6,1e-5,0.5,0.25",
        "1,0.2,2e-6,1e-5,0.5,0.25",
        "2,0.3,3e-6,9e-5,0.75,0.5",
    ]
    lines.append("2,,,,,")
    (tmp_path / "logs" / "metrics.csv").write_text("\n".join(lines) + "\n")
    assert curve(tmp_path) == ROWS
    write_curves(tmp_path / "curves.csv", {"miniature": curve(tmp_path)})
    assert (tmp_path / "curves.csv").read_text().splitlines()[1:] == [
        "miniature,0,2e-06,1e-05,0.5,0.25",
        "miniature,2,3e-06,9e-05,0.75,0.5",
    ]


def test_weights_that_moved(tmp_path: Path) -> None:
    for folder, value in (("base/pretrain-hf-1", 1.0), ("grpo-hf-2", 0.75)):
        (tmp_path / folder).mkdir(parents=True)
        save_file({"w": torch.tensor([0.5, value])}, tmp_path / folder / "weights.safetensors")
    assert moved(tmp_path) == 0.25


def test_the_record_is_what_readmes_table_reads(tmp_path: Path) -> None:
    RecordFile(tmp_path / "vllm", {"device": "a CPU"}, "0123456789abcdef").write([row_of("miniature", 20, ROWS, 0.5)])
    ((text, name),) = PLACES["vLLM"][0](tmp_path)
    assert name == "vllm" and text.startswith("GRPO of the miniature, 20 steps (a CPU, ")


@pytest.mark.parametrize("name", list(RUNS))
def test_commands_are_accepted(name: str, tmp_path: Path) -> None:
    """Composed and checked, without vLLM; where GRPO starts from what was pre-trained, a checkpoint stands in for that."""
    from r1_lightning.run.checks.validate import validate
    from r1_lightning.run.config.compose import compose_stage, composing

    folder = dense_folder(tmp_path / "qwen2", "qwen2") if RUNS[name].starts_from is not None else None
    for arguments in commands(name, STEPS, tmp_path):
        words = [f"init_from={folder}" if word.startswith("init_from=") else word for word in arguments]
        with composing(CONFIGS):
            stage = compose_stage(words)
            validate(stage.config)
            assert stage.config.stage.max_steps == (RUNS[name].base_steps if "stage=pretrain" in words else STEPS)


# ------------------------------------------------------------------------------------------------------------ for real


@pytest.mark.long
def test_two_models_are_trained_with_vllm_itself(tmp_path: Path) -> None:
    """Builds the guide's environment and trains 20 steps of a tiny DeepseekV3 and of a tiny Qwen2 in it. Needs a package index."""
    section = (
        (ROOT / "docs" / "guide.md").read_text(encoding="utf-8").split("\n## Sampling with vLLM\n")[1].split("\n## ")[0]
    )
    lines = [line.partition("#")[0].strip() for line in re.findall(r"```\n(.*?)```", section, re.S)[0].splitlines()]
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    for line in lines[:3]:
        words = line.replace("python3.11", sys.executable, 1).replace("vllm_env", str(tmp_path / "vllm_env"))
        subprocess.run(words, shell=True, cwd=ROOT, env=own, check=True, timeout=3600)
    python = tmp_path / "vllm_env" / "bin" / "python"
    runs = ["--runs", "deepseek_v3", "qwen2", "--out", str(tmp_path / "out")]
    subprocess.run([python, "-m", "benchmarks.with_vllm", *runs], cwd=ROOT, env=own, check=True, timeout=7200)
    (record,) = (tmp_path / "out").glob("*.json")
    rows = json.loads(record.read_text())["rows"]
    assert [row["work"] for row in rows] == ["deepseek_v3", "qwen2"]
    assert all(row["details"]["rollouts"] == 20 and 0 < row["value"] <= AGREEMENT["fp32"][1] for row in rows)
    assert all(row["details"]["largest change of a weight"] > 1e-3 for row in rows)
