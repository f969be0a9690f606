"""What a stage measures of itself while it trains: its own task, its own validation rows, and the best as an artefact."""

from __future__ import annotations

import csv
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from torch.distributed.device_mesh import init_device_mesh

from r1_lightning.artefacts import store
from r1_lightning.model.sharding import shard
from r1_lightning.review.rollout_records import read_records
from r1_lightning.run.checks.evaluation import task_name
from r1_lightning.run.stages import periodic
from r1_lightning.run.stages.periodic import _problems, chat_loss
from r1_lightning.stages.mtp import loss_ahead
from r1_lightning.types.errors import InvalidInput, Stopped
from r1_lightning.types.processes import Processes
from r1_lightning.types.stopping import STOP
from tests.data.test_chat_data import module as chat_data
from tests.data.test_chat_data import sums, write
from tests.run.test_endings import Captured, pretrain
from tests.support.commands import SMALL_MODEL, folder, overrides, train, weights
from tests.support.miniature import Miniature
from tests.support.processes import in_processes

ON = ("callbacks.evaluation.every_steps=2", "callbacks.evaluation.problems=3", "callbacks.evaluation.samples=2")


def rows(root: Path, stage: str) -> list[dict[str, str]]:
    with (folder(root, stage) / "tensorboard" / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_accuracy_over_steps_and_the_best_as_an_artefact(tmp_path: Path, capsys: Captured) -> None:
    best = "callbacks.evaluation.best=val/arithmetic/completion_tokens_mean"
    assert pretrain(tmp_path / "with", capsys, *ON, best).code == 0
    assert pretrain(tmp_path / "without", capsys).code == 0
    assert weights(tmp_path / "with", "pretrain") == weights(tmp_path / "without", "pretrain")
    measured = [row["val/arithmetic/pass_at_1"] for row in rows(tmp_path / "with", "pretrain")]
    assert [bool(value) for value in measured] == [False, True, False, True, True]  # after steps 2, 4 and 5
    names = {path.name for path in folder(tmp_path / "with", "pretrain").iterdir()}
    assert "best" in names and "best.safetensors" not in names
    made = store.open_artefact(folder(tmp_path / "with", "pretrain") / "best")
    store.verify(made)
    lengths = [float(row["val/arithmetic/completion_tokens_mean"] or 0) for row in rows(tmp_path / "with", "pretrain")]
    # metrics.csv holds single precision
    assert made.metrics["val/arithmetic/completion_tokens_mean"] == pytest.approx(max(lengths), rel=1e-6)
    assert made.metrics["step"] == lengths.index(max(lengths)) + 1
    kept = [
        (r.evaluation, r.step, r.prompt_index, r.sample) for r in read_records(folder(tmp_path / "with", "pretrain"))
    ]
    drawn = [(problem, sample) for problem in range(3) for sample in range(2)]
    assert [place for place in kept if place[0] == "val"] == [("val", step, *at) for step in (2, 4, 5) for at in drawn]
    from_best = [f"init_from={made.folder}", *overrides(tmp_path / "next", grpo_steps=2, evaluation=False)]
    assert train(from_best, capsys).code == 0
    sampled = list(read_records(folder(tmp_path / "next", "grpo")))
    assert {record.step for record in sampled} == {0} and {record.source for record in sampled} == {"rollout"}
    for record in sampled:
        assert record.reward == pytest.approx(sum(part.weight * (part.score or 0.0) for part in record.parts))
        assert record.parts and all(part.reason for part in record.parts)


def sft(root: Path, file: Path, capsys: Captured, *more: str) -> Any:
    small = [override for override in SMALL_MODEL if "self_check" not in override]
    own = [
        "stage=sft",
        f"data.examples.file={file}",
        "data.examples_per_batch=4",
        "data.row_tokens=128",
        "stage.evaluation=null",
    ]
    parent = 'stage.parent_overrides=["stage.max_steps=2","data.rows_per_batch=4","optim.warmup_steps=1"]'
    return train([*own, *small, parent, f"paths.root={root}", *more], capsys)


def test_sft_has_a_validation_loss(tmp_path: Path, capsys: Captured) -> None:
    file = tmp_path / "rows.jsonl"
    lines = [
        {"question": f"{n} + 1 = ?", "completion": f"<think>add one</think><answer>{n + 1}</answer>"} for n in range(20)
    ]
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    wanted = ("+data.validation_rows=4", "callbacks.evaluation.every_steps=4", "callbacks.evaluation.best=val/loss")
    assert sft(tmp_path / "runs", file, capsys, *wanted).code == 0
    losses = [float(row["val/loss"]) for row in rows(tmp_path / "runs", "sft") if row["val/loss"]]
    assert len(rows(tmp_path / "runs", "sft")) == 8  # two passes of sixteen rows, four to a step
    assert len(losses) == 2 and losses[1] < losses[0]
    best = json.loads((folder(tmp_path / "runs", "sft") / "best" / "artefact.json").read_text())
    assert best["metrics"] == {"val/loss": losses[1], "step": 8.0}
    refused = sft(tmp_path / "runs", file, capsys, "+data.validation_rows=20")
    assert "data.validation_rows=20 is not allowed: fewer than the 20 examples there are" in refused.error


@pytest.mark.parametrize("size", [1, 2, 5, 7])
def test_the_loss_is_the_mean_over_all_completion_tokens_however_batched(tmp_path: Path, size: int) -> None:
    """Against the same rows one by one, weighed by their completion tokens."""
    data = sums(7)
    for number, row in enumerate(data):
        row["completion"] = "1" * (number + 1)
    miniature = Miniature(max_steps=2)
    stage = miniature.sft()
    examples = write(tmp_path / "x.jsonl", data)
    together = chat_data(examples, examples_per_batch=size, validation_rows=6).validation_batches()
    alone = chat_data(examples, examples_per_batch=1, validation_rows=6).validation_batches()
    weights_ = [int(batch.n_targets(1)) for batch in alone]
    mean = sum(chat_loss(stage, [batch]) * weight for batch, weight in zip(alone, weights_, strict=True)) / sum(
        weights_
    )
    assert chat_loss(stage, together) == pytest.approx(mean, rel=1e-5)


class Source:
    def __init__(self, held_out: int, refuses: bool) -> None:
        self.held_out, self.refuses = held_out, refuses

    def held_out_problems(self, count: int) -> list[int]:
        if count > self.held_out and self.refuses:
            raise InvalidInput("too many")
        return list(range(min(count, self.held_out)))


@pytest.mark.parametrize(
    ("held_out", "refuses", "numbers"),
    [
        (100, True, [10, 11, 12]),
        (13, True, [10, 11, 12]),
        (12, True, [0, 1, 2]),
        (12, False, [0, 1, 2]),
        (2, False, [0, 1]),
    ],
)
def test_problems_are_others_than_the_final_ones_where_there_are_enough(
    held_out: int, refuses: bool, numbers: list[int]
) -> None:
    assert _problems(Source(held_out, refuses), 10, 3) == numbers


@pytest.mark.parametrize(
    ("task", "name"),
    [
        ({"name": "gsm8k", "source": {"_target_": "r1_lightning.tasks.dataset_task.DatasetTask"}}, "gsm8k"),
        ({"source": {"_target_": "r1_lightning.tasks.arithmetic.ArithmeticTask"}}, "arithmetic"),
        ({"name": None, "source": {"_target_": "my.MyTask"}}, "my"),
    ],
)
def test_measures_carry_the_name_of_the_task(task: dict[str, Any], name: str) -> None:
    assert task_name(OmegaConf.create({"task": task})) == name


def _loss(processes: Processes) -> float:
    stage = Miniature(max_steps=2, processes=processes).sft()
    data = Miniature(max_steps=2).examples(examples_per_batch=3)
    data.validation_rows = 8
    return chat_loss(stage, data.validation_batches())


def test_processes_share_the_validation_batches() -> None:
    """Eight rows are batches of 3, 3 and 2: the mean is over all tokens of all processes."""
    (expected,) = in_processes(1, _loss)
    assert in_processes(2, _loss) == [pytest.approx(expected, rel=1e-6)] * 2


def _signalled(processes: Processes) -> int:
    """Batches computed until a signal to the last process, in its second batch, ends the measurement in all of them."""
    batches: list[int] = []

    def counted(*given: Any) -> Any:
        batches.append(1)
        if len(batches) == 2 and processes.rank == processes.count - 1:
            os.kill(os.getpid(), signal.SIGUSR1)
        return loss_ahead(*given)

    with pytest.MonkeyPatch.context() as patch, STOP.listening(), STOP.between_polls(), pytest.raises(Stopped):
        patch.setattr(periodic, "loss_ahead", counted)
        _loss(processes)
    return len(batches)


@pytest.mark.parametrize("count", [1, 2])
def test_a_signal_ends_it_after_the_batch_in_all_processes(count: int) -> None:
    assert in_processes(count, _signalled) == [2] * count


def _divided_loss(processes: Processes) -> float:
    """The same validation loss of weights that the processes divide: each forward of one gathers in all."""
    stage = Miniature(max_steps=2, processes=processes).sft()
    shard(stage.backbone, init_device_mesh("cpu", (processes.count,)))
    data = Miniature(max_steps=2).examples(examples_per_batch=3)
    data.validation_rows = 8
    first, second = (chat_loss(stage.eval(), data.validation_batches()) for _ in range(2))
    assert first == second
    return first


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3])
def test_processes_that_divide_the_weights_share_the_validation_batches(count: int) -> None:
    """Three batches of 3, 3 and 2 examples, packed into one or two rows: some processes have none, and compute all the same."""
    (expected,) = in_processes(1, _loss)
    assert in_processes(count, _divided_loss, limit_s=180) == [pytest.approx(expected, rel=1e-6)] * count
