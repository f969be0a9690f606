"""`trainer=ddp trainer.devices=2`, torchrun and a SLURM step: one run, the same artefact as one process makes, and no hang.

Whole commands in processes of their own, each with a hard limit (`tests/support/launched.py`); gloo on the CPU.
"""

from __future__ import annotations

import csv
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from r1_lightning.artefacts import store
from tests.run.test_sft import alone, write
from tests.support.commands import folder, overrides, train
from tests.support.launched import (
    by_srun,
    by_starter,
    by_torchrun,
    ended,
    kill_all,
    pretrain,
    ranks_of,
    started,
    stop_at,
    wait_for_checkpoint,
)

pytestmark = pytest.mark.slow
# AdamW divides each gradient by its own size, so that a weight whose gradient is nearly 0 moves by lr times rounding: after a
# few steps of lr 0.01 that is far above the 1e-6 within which the gradients themselves agree (`tests/stages/test_processes.py`).
CLOSE = 2e-4


def difference(one: Path, other: Path, stage: str) -> float:
    """The largest difference between two runs' weights; their folders must have the same name, fingerprint included."""
    first, second = folder(one, stage), folder(other, stage)
    assert first.name == second.name and store.is_complete(first) and store.is_complete(second)
    found, expected = load_file(first / store.WEIGHTS), load_file(second / store.WEIGHTS)
    assert found.keys() == expected.keys()
    return max(float((found[name] - expected[name]).abs().max()) for name in found)


def rows(root: Path, stage: str) -> list[dict[str, str]]:
    with (folder(root, stage) / "tensorboard" / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(autouse=True)
def none_is_left() -> Iterator[None]:
    """Kill what a test that has failed leaves behind."""
    yield
    kill_all()


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with what one process makes: a pre-training of 4 steps, and another, with GRPO after it."""
    root = tmp_path_factory.mktemp("one")
    assert train(pretrain(root / "pretrain")).code == 0
    assert train(overrides(root / "grpo", evaluation=False)).code == 0
    return root


def test_two_processes_make_the_artefacts_of_one(one: Path, tmp_path: Path) -> None:
    made = by_starter(overrides(tmp_path, evaluation=False), 2)
    assert made.code == 0, made.err
    assert made.out.count("planning") == 1 and made.out.count("everything lies in") == 1  # rank 0 alone speaks
    for stage in ("pretrain", "grpo"):
        assert difference(tmp_path, one / "grpo", stage) < CLOSE
        assert [row["step"] for row in rows(tmp_path, stage)] == ["0", "1", "2", "3", "4"]
    name = "rollout/reward_mean"
    assert [row[name] for row in rows(tmp_path, "grpo")] == [row[name] for row in rows(one / "grpo", "grpo")]
    assert (folder(tmp_path, "grpo") / store.COMMITS).read_text().count("\n") == 1  # one process wrote it, once
    again = train(overrides(tmp_path, evaluation=False))
    assert again.code == 0  # the number of processes is not in the fingerprint: one process finds the same artefact


def test_divided_weights_make_the_artefacts_of_one(one: Path, tmp_path: Path) -> None:
    """Each of two processes holds half of the weights, and samples from a whole copy."""
    made = by_starter(overrides(tmp_path, evaluation=False), 2, "fsdp")
    assert made.code == 0, made.err
    for stage in ("pretrain", "grpo"):
        assert difference(tmp_path, one / "grpo", stage) < CLOSE
    name = "rollout/reward_mean"
    assert [row[name] for row in rows(tmp_path, "grpo")] == [row[name] for row in rows(one / "grpo", "grpo")]


def test_a_run_of_divided_weights_is_resumed_by_any_number(one: Path, tmp_path: Path) -> None:
    """Two processes to step 1, one to step 3, three to the end; what the first left is a file per process."""
    first = by_starter(pretrain(tmp_path, 4, stop_at(1)), 2, "fsdp")
    assert "training ended after 1 optimizer steps" in first.error
    left = folder(tmp_path, "pretrain") / "checkpoints" / "shards-1"
    assert sorted(path.name for path in left.iterdir()) == [f"rank-{rank}-of-2.safetensors" for rank in range(2)]
    assert train(pretrain(tmp_path, 4, stop_at(3))).code == 2
    last = by_starter(pretrain(tmp_path), 3, "fsdp")
    assert last.code == 0 and "resuming" in last.out
    assert difference(tmp_path, one / "pretrain", "pretrain") < CLOSE
    assert not left.parent.exists()


def test_sft_with_unequal_shares_makes_the_artefact_of_one(tmp_path: Path) -> None:
    """Batches of three short examples, packed into one row or two, over two processes: one may have no row."""
    data = write(tmp_path / "x.jsonl", 5)
    own = ["data.examples_per_batch=3", "data.micro_batches=1", "stage.evaluation=null", f"data.examples.file={data}"]
    made = by_starter(alone(tmp_path / "two", *own), 2)
    assert made.code == 0, made.err
    assert train(alone(tmp_path / "one", *own)).code == 0
    assert difference(tmp_path / "two", tmp_path / "one", "sft") < CLOSE
    losses = [[float(row["train/loss"]) for row in rows(tmp_path / name, "sft")] for name in ("one", "two")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_counts_that_do_not_divide_end_with_divided_weights(tmp_path: Path) -> None:
    """Three problems and five validation rows over two processes, in training and after it; each forward gathers in both.

    The rows are batches of 3 and 2, packed into one row each or two. The best weights and the last ones are put together by both
    processes, also where one alone writes. Pre-training, the input, has an evaluation of its own.
    """
    data = write(tmp_path / "x.jsonl", 10)
    own = ["data.examples_per_batch=3", "data.micro_batches=1", "+data.validation_rows=5", f"data.examples.file={data}"]
    own += [
        "callbacks.evaluation.every_steps=1",
        "callbacks.evaluation.problems=3",
        "callbacks.evaluation.best=val/loss",
    ]
    own += ["stage.evaluation={problems: 3, samples: 1, max_new_tokens: 12}"]
    made = by_starter(alone(tmp_path / "two", *own), 2, "fsdp")
    assert made.code == 0, made.err
    assert train(alone(tmp_path / "one", *own)).code == 0
    assert difference(tmp_path / "two", tmp_path / "one", "sft") < CLOSE
    losses = [
        [float(row["val/loss"]) for row in rows(tmp_path / name, "sft") if row["val/loss"]] for name in ("one", "two")
    ]
    # Five examples are left to train on, twice: ten in batches of three are four steps, each measured.
    assert losses[1] == pytest.approx(losses[0], rel=1e-4) and len(losses[0]) == 4
    first, second = (store.open_artefact(folder(tmp_path / name, "sft") / "best") for name in ("one", "two"))
    assert second.metrics == pytest.approx(first.metrics, rel=1e-4)
    for root in ("one", "two"):
        assert "pass_at_1" in (folder(tmp_path / root, "sft") / "table.txt").read_text()


def test_an_evaluation_of_three_problems_ends_after_grpo_with_divided_weights(tmp_path: Path) -> None:
    """One process measures two problems in two waves, the other one in one; the model and its base."""
    three = ["stage.evaluation.problems=3", "+stage.evaluation.max_rows=2"]
    made = by_starter([*overrides(tmp_path, 2, 2), *three], 2, "fsdp")
    assert made.code == 0, made.err
    title, head, *_ = (folder(tmp_path, "grpo") / "table.txt").read_text().splitlines()
    assert title.startswith("3 held-out problems") and head.split() == ["base", "grpo"]


def test_torchrun_and_srun_make_the_bits_of_our_own_starter(one: Path, tmp_path: Path) -> None:
    made = by_starter(pretrain(tmp_path / "starter"), 2)
    assert made.code == 0, made.err
    made = by_torchrun(pretrain(tmp_path / "torchrun"), 2)
    assert made.code == 0, made.err
    tasks = by_srun([pretrain(tmp_path / "srun")] * 2)
    assert [task.code for task in tasks] == [0, 0], tasks[0].err
    assert "everything lies in" in tasks[0].out and tasks[1].out == ""
    assert difference(tmp_path / "torchrun", tmp_path / "starter", "pretrain") == 0.0
    assert difference(tmp_path / "srun", tmp_path / "starter", "pretrain") == 0.0
    assert difference(tmp_path / "starter", one / "pretrain", "pretrain") < CLOSE


def test_the_number_of_processes_may_change_at_each_resume(one: Path, tmp_path: Path) -> None:
    """Two processes to step 1, one to step 3, three to the end."""
    first = by_starter(pretrain(tmp_path, 4, stop_at(1)), 2)
    assert "training ended after 1 optimizer steps" in first.error
    assert train(pretrain(tmp_path, 4, stop_at(3))).code == 2
    last = by_starter(pretrain(tmp_path), 3)
    assert last.code == 0 and "resuming" in last.out
    assert difference(tmp_path, one / "pretrain", "pretrain") < CLOSE
    assert [row["step"] for row in rows(tmp_path, "pretrain")] == ["0", "1", "2", "3"]


def test_a_killed_rank_ends_the_run_and_nothing_is_lost(tmp_path: Path) -> None:
    process = started(pretrain(tmp_path, 400), 2)
    wait_for_checkpoint(tmp_path, process)
    ranks = ranks_of(process)
    os.kill(ranks[1], signal.SIGKILL)
    killed_s = time.monotonic()
    found = ended(process, 30)
    assert found.code == 137 and time.monotonic() - killed_s < 20
    errors = [line for line in found.err.splitlines() if line.startswith("error: ")]
    assert errors == [f"error: rank 1 of 2 (pid {ranks[1]}) was killed by SIGKILL; the others end, too"]
    assert "Traceback" not in found.err
    assert not Path(f"/proc/{ranks[0]}").exists()
    assert (folder(tmp_path, "pretrain") / "checkpoints" / "last.ckpt").is_file()


def test_a_rank_that_fails_alone_after_a_step_ends_the_run_and_its_line_is_said(tmp_path: Path) -> None:
    """A process judges 4 completions in the self-check and 4 in the rollout of steps 1 and 2; rank 1 fails in the next one.

    The other one is told, and both end by that line.
    """
    refuses = "+reward.rewards.refuses={_target_: tests.support.launched.Refuses, before: 8}"
    own = [refuses, "+reward.weights.refuses=1.0", "trainer.checkpoint_every_steps=1"]
    found = by_starter([*overrides(tmp_path, 1, 5, evaluation=False), *own], 2)  # which has a limit
    assert found.error == "reward.rewards.refuses: this completion has no verdict"  # code 2, and the line once
    assert torch.load(folder(tmp_path, "grpo") / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 2


def test_ctrl_c_saves_once_and_ends_all_ranks(tmp_path: Path) -> None:
    process = started(pretrain(tmp_path, 400), 2)
    wait_for_checkpoint(tmp_path, process)
    refused = by_starter(pretrain(tmp_path, 400), 2)  # a second run of the same folder, meanwhile
    assert "another process (pid" in refused.error and "is training it right now" in refused.error
    process.send_signal(signal.SIGINT)
    found = ended(process, 60)
    assert found.code == 130, found.err
    assert found.err.count("Ctrl-C: saving and stopping") == 1
    assert found.err.count("interrupted; the same command resumes, step ") == 1
    assert "Traceback" not in found.err


def test_a_silent_rank_ends_the_run_after_the_stated_time(tmp_path: Path) -> None:
    process = started(pretrain(tmp_path, 400, "trainer.timeout_s=5"), 2)
    wait_for_checkpoint(tmp_path, process)
    os.kill(ranks_of(process)[1], signal.SIGSTOP)
    stopped_s = time.monotonic()
    found = ended(process, 200)
    # 5 s of silence, LOST_LATER_S = 40 s for one that failed first to say so, 10 s of leaving the group, END_S = 3 s: 58 s.
    assert found.code == 1 and time.monotonic() - stopped_s < 150
    lines = [line for line in found.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and lines[0].startswith("error: another process did not answer within trainer.timeout_s;")
    assert "Traceback" not in found.err


def test_what_is_wrong_is_said_once(tmp_path: Path) -> None:
    assert "optim.lr=-1 is not allowed" in by_starter(pretrain(tmp_path, 4, "optim.lr=-1"), 2).error
    assert not list(tmp_path.glob("pretrain-*"))


def test_ranks_that_would_run_something_else_are_refused(tmp_path: Path) -> None:
    tasks = by_srun([pretrain(tmp_path), pretrain(tmp_path, 4, "seed=1")])
    assert [task.code for task in tasks] == [2, 2]
    assert tasks[0].error.startswith("configuration of rank 1 is not that of rank 0 (")
    assert not list(tmp_path.glob("pretrain-*"))


def test_an_error_of_another_rank_alone_is_said_once_with_its_code(tmp_path: Path) -> None:
    """Rank 0 only loses rank 1, and is ended before it says so with another code."""
    fails = "+callbacks.fails={_target_: tests.support.launched.FailIn, rank: 1}"
    made = by_starter(pretrain(tmp_path, 400, fails), 2)
    assert made.error == "the disk of rank 1 is full" and "Traceback" not in made.err
