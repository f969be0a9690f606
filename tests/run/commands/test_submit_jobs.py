"""The jobs of a submission: their order, what they wait for, what is refused, what is left out; with a program as sbatch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from r1_lightning.artefacts import store
from r1_lightning.run.commands import submit_jobs
from r1_lightning.run.commands.submit_jobs import submit_points
from r1_lightning.run.commands.submit_points import Point
from r1_lightning.run.config.stage_config import StageConfig
from r1_lightning.run.graph.node import Node
from r1_lightning.types.errors import InvalidInput
from tests.run.commands.test_slurm import program, programs  # noqa: F401 - a fixture
from tests.run.config.test_slurm import settings

SBATCH = 'echo "$*" >>{0}/told; echo $(($(wc -l <{0}/told) + 10))'  # numbers from 11 on


@pytest.fixture(autouse=True)
def cluster(tmp_path: Path, programs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:  # noqa: F811
    """sbatch notes its words; squeue knows the jobs in the file `alive`."""
    program(programs, "sbatch", SBATCH.format(tmp_path))
    program(programs, "squeue", f"cat {tmp_path}/alive")
    (tmp_path / "alive").touch()
    monkeypatch.setattr(submit_jobs, "copy_code", lambda folder: folder / "copy")
    return tmp_path


def node(root: Path, stage: str, digit: str, shards: tuple[int, int] = (0, 1), **inputs: Node) -> Node:
    shard = {"shard": shards[0], "shards": shards[1]} if shards[1] > 1 else {}
    config = OmegaConf.create({"paths": {"root": str(root)}, "stage": shard})
    return Node(StageConfig(stage, {}, config, "train"), digit * 64, inputs)


def point(root: Path, made: Node, *words: str, **launcher: Any) -> Point:
    return Point(words or (f"stage={made.stage.stage}",), made, settings(**launcher), root)


def graph(root: Path) -> Node:
    """pretrain -> sft -> grpo, and pretrain -> reward_model -> grpo."""
    base = node(root, "pretrain", "a")
    cold, helpful = node(root, "sft", "b", base=base), node(root, "reward_model", "c", base=base)
    return node(root, "grpo", "d", base=cold, helpful=helpful)


def complete(made: Node) -> None:
    artefact = store.create(made.root, made.stage.stage, "tiny", "sums", made.fingerprint)
    artefact.weights_path.write_bytes(b"x")
    store.complete(artefact, "c", {}, {}, {})


def told(folder: Path) -> list[Mapping[str, str]]:
    """Each call of sbatch: the run of its script, and the jobs it waits for."""
    calls = []
    for line in (folder / "told").read_text().splitlines():
        words = line.split()
        after = [word.removeprefix("--dependency=afterok:") for word in words if "afterok" in word]
        calls.append({"run": Path(words[-1]).parent.name, "after": "".join(after)})
    return calls


def test_inputs_come_first_and_the_rest_waits_for_them(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    said = submit_points([point(root, graph(root))], False)
    assert told(tmp_path) == [
        {"run": "pretrain-aaaaaaaaaa", "after": ""},
        {"run": "sft-bbbbbbbbbb", "after": "11"},
        {"run": "reward_model-cccccccccc", "after": "11"},
        {"run": "grpo-dddddddddd", "after": "12:13"},
    ]
    assert said.splitlines()[3] == "grpo-dddddddddd: job 14, after 12, 13"
    assert f"tail -F {root}/slurm/grpo-dddddddddd/latest.txt" in said and "scancel 11 12 13 14" in said
    assert "        only=sft-bbbbbbbbbb\n" not in (root / "slurm/grpo-dddddddddd/job.sh").read_text()
    assert "    only=sft-bbbbbbbbbb\n" in (root / "slurm/sft-bbbbbbbbbb/job.sh").read_text()
    record = json.loads((root / "slurm/grpo-dddddddddd/submission.json").read_text())
    assert (record["job"], record["words"]) == ("14", ["stage=grpo"])


def test_what_is_there_is_left_out(tmp_path: Path) -> None:
    """The sft stage is complete, so only the reward model needs its base, and grpo waits for the reward model alone."""
    root = tmp_path / "runs"
    target = graph(root)
    complete(target.inputs["base"])  # type: ignore[arg-type]
    submit_points([point(root, target)], False)
    assert [call["run"] for call in told(tmp_path)] == [
        "pretrain-aaaaaaaaaa",
        "reward_model-cccccccccc",
        "grpo-dddddddddd",
    ]
    assert told(tmp_path)[2]["after"] == "12"
    complete(target)
    assert "grpo-dddddddddd: complete, nothing to submit" in submit_points([point(root, target)], False)
    assert len(told(tmp_path)) == 3


def test_an_input_of_what_is_complete_is_not_made(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    base = node(root, "pretrain", "a")
    cold = node(root, "sft", "b", base=base)
    complete(cold)
    submit_points([point(root, node(root, "grpo", "d", base=cold))], False)
    assert told(tmp_path) == [{"run": "grpo-dddddddddd", "after": ""}]


def test_one_job_for_all_stages(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    submit_points([point(root, graph(root), job_per_stage=False)], False)
    assert told(tmp_path) == [{"run": "grpo-dddddddddd", "after": ""}]


def test_a_second_submission_is_refused_while_the_first_is_alive(tmp_path: Path) -> None:
    """Then it goes on with what has stopped, and waits for an input that another submission is making."""
    root = tmp_path / "runs"
    target = node(root, "grpo", "d", base=node(root, "pretrain", "a"))
    submit_points([point(root, target)], False)
    (tmp_path / "alive").write_text("11|RUNNING|None\n12|PENDING|Dependency\n")
    with pytest.raises(InvalidInput, match=r"^submit='grpo-dddddddddd' is not allowed: job 12 \(PENDING\)"):
        submit_points([point(root, target)], False)
    (tmp_path / "alive").write_text("11|RUNNING|None\n")
    assert "pretrain-aaaaaaaaaa: job 11 makes it already" in submit_points([point(root, target)], False)
    assert told(tmp_path)[2:] == [{"run": "grpo-dddddddddd", "after": "11"}]
    (tmp_path / "alive").write_text("")
    submit_points([point(root, target)], False)
    assert [call["run"] for call in told(tmp_path)[3:]] == ["pretrain-aaaaaaaaaa", "grpo-dddddddddd"]


def test_a_run_that_a_process_holds_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    target = node(root, "grpo", "d")
    folder = store.create(root, "grpo", "tiny", "sums", target.fingerprint).folder
    with store.locked(folder), pytest.raises(InvalidInput, match="a process is at work in"):
        submit_points([point(root, target)], False)


def test_a_sweep_is_an_array_that_shares_its_inputs(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    base = node(root, "pretrain", "a")
    points = [point(root, node(root, "grpo", digit, base=base), f"optim.lr={digit}") for digit in "123"]
    said = submit_points(points, False)
    calls = [{"run": "pretrain-aaaaaaaaaa", "after": ""}, {"run": "grpo-1111111111", "after": "11"}]
    assert told(tmp_path) == calls
    assert "grpo-3333333333: job 12_2, after 11" in said
    script = (root / "slurm/grpo-3333333333/job.sh").read_text()
    assert script == (root / "slurm/grpo-1111111111/job.sh").read_text() and "#SBATCH --array=0-2\n" in script
    (tmp_path / "alive").write_text("12_2|RUNNING|None\n")
    with pytest.raises(InvalidInput, match=r"grpo-3333333333.*job 12_2 \(RUNNING\)"):
        submit_points(points[2:], False)


def test_shards_of_one_stage_are_an_array(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    points = [point(root, node(root, "sample", "e", (shard, 2)), f"stage.shard={shard}") for shard in (0, 1)]
    assert "sample-eeeeeeeeee-shard-1: job 11_1" in submit_points(points, False)
    with pytest.raises(InvalidInput, match="two runs of the sweep are the same"):
        submit_points([points[0], points[0]], False)


def test_the_digits_of_a_stage_with_a_hyphen_are_its_fingerprint_s(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    submit_points([point(root, node(root, "cold-start", "f", (1, 2)))], False)
    record = json.loads((root / "slurm/cold-start-ffffffffff-shard-1/submission.json").read_text())
    assert record["digits"] == "f" * 10


def test_a_run_is_made_anew_although_it_is_there(tmp_path: Path) -> None:
    """Its inputs are not; a run that the last submission began anew and did not finish is resumed, one that is done is not."""
    root = tmp_path / "runs"
    target = node(root, "grpo", "d", base=node(root, "pretrain", "a"))
    complete(target)
    asked = replace(point(root, target, "stage=grpo", "fresh=true"), fresh=True)
    submit_points([asked], False)
    assert [call["run"] for call in told(tmp_path)] == ["pretrain-aaaaaaaaaa", "grpo-dddddddddd"]
    job, base = ((root / "slurm" / call["run"] / "job.sh").read_text() for call in reversed(told(tmp_path)))
    assert "    fresh=true\n" in job and 'export R1_FRESH="$folder/fresh.txt"\n' in job
    assert "fresh" not in base.lower()
    sibling = store.create(root, "grpo", "tiny", "sums", target.fingerprint)
    note = root / "slurm/grpo-dddddddddd/fresh.txt"
    note.write_text(f"{sibling.folder.name}\n")
    assert f"grpo-dddddddddd: goes on with {sibling.folder}" in submit_points([asked], False) and note.exists()
    with store.locked(sibling.folder), pytest.raises(InvalidInput, match="a process is at work in"):
        submit_points([asked], False)
    sibling.weights_path.write_bytes(b"x")
    store.complete(sibling, "c", {}, {}, {})
    assert "goes on" not in submit_points([asked], False) and not note.exists()


def test_a_folder_of_options_is_copied_for_every_job(tmp_path: Path) -> None:
    root, own = tmp_path / "runs", tmp_path / "own"
    (own / "model").mkdir(parents=True)
    (own / "model" / "mine.yaml").write_text("a: 1\n")
    target = node(root, "grpo", "d", base=node(root, "pretrain", "a"))
    submit_points([replace(point(root, target), configs=own)], False)
    (copy,) = (root / "slurm" / "code").iterdir()
    assert (copy / "model" / "mine.yaml").read_text() == "a: 1\n"
    for name in ("grpo-dddddddddd", "pretrain-aaaaaaaaaa"):
        assert f"    train\n    --config-dir={copy}\n    stage=grpo\n" in (root / "slurm" / name / "job.sh").read_text()
    said = submit_points([replace(point(root / "dry", target), configs=own)], True)
    assert f"    --config-dir={root}/dry/slurm/code/CONFIGS\n" in said and not (root / "dry").exists()


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    said = submit_points([point(root, graph(root))], True)
    assert not root.exists() and not (tmp_path / "told").exists()
    assert said.count("#!/usr/bin/env bash") == 4
    waits = "--dependency=afterok:JOB-OF-reward_model-cccccccccc:JOB-OF-sft-bbbbbbbbbb"
    assert f"# sbatch {waits} {root}/slurm/grpo-dddddddddd/job.sh" in said
