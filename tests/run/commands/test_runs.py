"""The list of runs: what is there, how far, what it is worth, and what sets runs of one stage apart."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from r1_lightning.artefacts.locks import locked
from r1_lightning.run.commands.runs import list_runs, read_runs
from r1_lightning.types.errors import InvalidInput
from tests.run.conftest import Command


def make(root: Path, name: str, config: dict[str, Any], metrics: dict[str, Any] | None = None, steps: int = 0) -> Path:
    folder = root / name
    (folder / "tensorboard").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    if steps:
        rows = "".join(f"{step},{0.5 + step / 100}\n" for step in range(steps))
        (folder / "tensorboard" / "metrics.csv").write_text(f"step,train/loss\n{rows}")
    if metrics is not None:
        record = {"stage": name.split("-")[0], "created": "2026-11-28T21:30:05+00:00", "metrics": metrics}
        (folder / "artefact.json").write_text(json.dumps(record))
    return folder


def config(**more: Any) -> dict[str, Any]:
    return {
        "seed": 0,
        "stage": {"max_steps": 160},
        "optim": {"lr": 1e-4, "betas": [0.9, 0.95]},
        "paths": {"root": "x"},
        **more,
    }


def test_state_step_measure_and_differences(tmp_path: Path) -> None:
    right = {"eval_base/arithmetic/pass_at_1": 0.1, "eval/arithmetic/pass_at_1": 0.75, "train/loss": 3.0}
    make(tmp_path, "grpo-tiny-arithmetic-0000000001", config(), right, 160)
    make(tmp_path, "grpo-tiny-arithmetic-0000000002", config(seed=1), None, 41)
    held = make(tmp_path, "grpo-mine-0000000003", config(name="mine", optim={"lr": 3e-4}), None, 9)
    make(tmp_path, "grpo-tiny-arithmetic-0000000004", config(paths={"root": "y"}), {"eval/gsm8k/pass_at_1": None})
    make(tmp_path, "reward_model-x-0000000005", config(), {"eval/preferences/pair_accuracy": 0.9}, 5)
    (tmp_path / "multirun").mkdir()
    with locked(held):
        lines = list_runs([str(tmp_path)]).splitlines()
    assert lines[0].split() == ["run", "stage", "state", "step", "measure", "made", "(UTC)", "apart", "by"]
    by_name = {line.split()[0]: line for line in lines[1:]}
    first, second = by_name["grpo-tiny-arithmetic-0000000001"], by_name["grpo-tiny-arithmetic-0000000002"]
    assert "complete" in first and "160/160" in first and "eval/arithmetic/pass_at_1 0.75" in first
    assert first.endswith("2026-11-28 21:30"), "it is as most are"
    assert "interrupted" in second and "41/160" in second and "train/loss 0.9" in second and second.endswith("seed=1")
    assert "running" in by_name["mine"] and by_name["mine"].endswith("optim.betas=-, optim.lr=0.0003")
    assert "paths" not in by_name["grpo-tiny-arithmetic-0000000004"]
    assert "eval/preferences/pair_accuracy 0.9" in by_name["reward_model-x-0000000005"]
    assert list_runs([str(tmp_path), "stage=reward_model"]).count("\n") == 1


@pytest.mark.parametrize("broken", [b"", b"[1, 2]", b"{", b"\xff\xfe", b"a: [", b"null"])
def test_a_broken_file_does_not_end_the_list(tmp_path: Path, broken: bytes) -> None:
    folder = make(tmp_path, "grpo-x-0000000001", config())
    (folder / "config.yaml").write_bytes(broken)
    (folder / "artefact.json").write_bytes(broken)
    assert [run.state for run in read_runs(tmp_path)] == ["interrupted"]


def test_no_runs_and_no_folder(tmp_path: Path) -> None:
    assert list_runs([str(tmp_path)]) == f"there are no runs in {tmp_path}"
    with pytest.raises(InvalidInput, match="there is no such folder"):
        list_runs([str(tmp_path / "absent")])
    with pytest.raises(InvalidInput, match="it must be one folder"):
        list_runs(["a", "b"])


def test_it_imports_no_torch(repo_root: Path, tmp_path: Path) -> None:
    code = "import sys; from r1_lightning.run.commands import runs; "
    code += f"runs.list_runs([{str(tmp_path)!r}]); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=repo_root, timeout=60).returncode == 0


def test_a_name_is_for_people_and_finds_the_same_run(command: Command, tmp_path: Path) -> None:
    first = command("stage=grpo", "name=my-try.2")
    (made,) = (tmp_path / "runs").glob("grpo-*")
    assert first.code == 0 and made.name.startswith("grpo-my-try.2-")
    for again in (["stage=grpo"], ["stage=grpo", "name=other"], ["stage=grpo", "name=my-try.2"]):
        outcome = command(*again)
        assert outcome.recorder.stages == [] and str(made.relative_to(tmp_path)) in outcome.out
    assert "my-try.2" in list_runs([str(tmp_path / "runs")])
    assert not list((tmp_path / "runs").glob("pretrain-my-try*")), "the base keeps its own"
    for bad in ("a/b", "..", "a b", "1a", '""', "a" * 61, "3"):
        assert "name=" in command("stage=grpo", f"name={bad}").error
