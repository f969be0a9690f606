"""Rows that cannot give what a stage trains on are noticed before anything is made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from r1_lightning.tasks.arithmetic import ArithmeticTask
from r1_lightning.types.errors import InvalidInput
from tests.run.conftest import REAL_CONFIGS, Command

ROW = json.dumps({"question": "1+1?", "completion": "<think>a</think>2"})
EXAMPLES = [
    (
        ["stage=sft"],
        "data.examples.file=None is not allowed: give a file (or data.examples.hub=OWNER/NAME), or an artefact",
    ),
    (["stage=sft", "data.examples.file=nowhere.jsonl"], "nowhere.jsonl is not readable: No such file or directory"),
    (
        ["stage=sft", "data.examples.file=good.jsonl", "+stage.inputs.data.folder=x"],
        "the stage has an input 'data' as well",
    ),
    (["stage=sft", "data.examples.file=bad.jsonl"], "bad.jsonl, line 2: the field 'completion' is missing"),
    (["stage=sft", "data.examples.hub=name"], "hub='name' is not allowed: it must be owner/name"),
]


@pytest.mark.parametrize(("arguments", "expected"), EXAMPLES, ids=[" ".join(arguments) for arguments, _ in EXAMPLES])
def test_examples_that_cannot_be_had_are_refused(
    command: Command, tmp_path: Path, arguments: list[str], expected: str
) -> None:
    (tmp_path / "good.jsonl").write_text(ROW + "\n")
    (tmp_path / "bad.jsonl").write_text(ROW + '\n{"question": "q"}\n')
    assert expected in command(*arguments, configs=REAL_CONFIGS).error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.jsonl", "good.jsonl"]


def test_an_input_comes_in_place_of_a_file(command: Command) -> None:
    """The folder itself is looked at next."""
    error = command("stage=sft", "+stage.inputs.data.folder=nowhere", configs=REAL_CONFIGS).error
    assert error.startswith("stage.inputs.data.folder: ") and "there is no such folder" in error


def test_too_few_held_out_problems_are_noticed_before_the_base_is_trained(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_few(self: ArithmeticTask, count: int) -> None:
        raise InvalidInput(f"held_out_problems={count} is not allowed: there are only 3")

    monkeypatch.setattr(ArithmeticTask, "held_out_problems", too_few)
    error = command("stage=grpo", configs=REAL_CONFIGS).error
    assert error == "stage.evaluation.problems: held_out_problems=500 is not allowed: there are only 3"


def test_a_task_without_what_the_stage_trains_on_is_noticed_before_anything_is_made(
    command: Command, tmp_path: Path
) -> None:
    """A benchmark has nothing to train on; rows without worked solutions have nothing to pre-train on."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"problem": "p", "answer": 1}\n{"problem": "q", "answer": 2}\n', encoding="utf-8")
    aime = ["stage=grpo", "task=aime24", "reward=math", f"task.source.test.file={rows}", "stage.evaluation.problems=2"]
    benchmark = command(*aime, configs=REAL_CONFIGS).error
    assert benchmark.startswith("aime has no training rows here")
    train = f"task.source.train={{_target_: r1_lightning.tasks.rows.Rows, file: {tmp_path / 'train.jsonl'}}}"
    assert command(*aime, train, configs=REAL_CONFIGS).error.endswith(
        "train.jsonl is not readable: No such file or directory"
    )
    (tmp_path / "train.jsonl").write_text('{"problem": "r", "answer": 3}\n', encoding="utf-8")
    assert command(*aime, train, configs=REAL_CONFIGS).error.startswith("aime has no worked solutions to pre-train on")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.jsonl", "train.jsonl"]


def test_text_that_a_student_cannot_learn_is_noticed_before_anything_is_made(command: Command, tmp_path: Path) -> None:
    """Documents are asked for where there are no traces; a file of traces is read to its end."""
    traces = tmp_path / "traces.jsonl"
    traces.write_text('{"question": "p", "completion": "q"}\n{"question": "p"}\n', encoding="utf-8")
    named = f"data.traces.file={tmp_path}/traces.jsonl"
    assert (
        "traces.jsonl, line 2: the field 'completion' is missing"
        in command("stage=distill", named, configs=REAL_CONFIGS).error
    )
    for name, problem in (("test", "p"), ("train", "r")):
        (tmp_path / f"{name}.jsonl").write_text(f'{{"problem": "{problem}", "answer": 1}}\n', encoding="utf-8")
    aime = ["stage=distill", "task=aime24", f"task.source.test.file={tmp_path / 'test.jsonl'}", "stage.evaluation=null"]
    aime += [f"task.source.train={{_target_: r1_lightning.tasks.rows.Rows, file: {tmp_path / 'train.jsonl'}}}"]
    assert command(*aime, configs=REAL_CONFIGS).error.startswith("aime has no worked solutions to pre-train on")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["task.template=r1", "reward=r1"], "with task.template=r1 samples are of the form r1"),
        (["~reward.rewards.format", "~reward.weights.format"], "it needs a reward named format"),
    ],
)
def test_samples_that_cannot_be_rewritten_are_noticed_before_anything_is_made(
    command: Command, overrides: list[str], message: str
) -> None:
    assert message in command("stage=sample", "stage.rewrite_as=r1", *overrides, configs=REAL_CONFIGS).error


GENERAL = (
    "+stage.sources.general={_target_: r1_lightning.tasks.clean_traces.CleanTraces, count: 2, domain: general, "
    "source: {_target_: r1_lightning.tasks.general.GeneralTask}}"
)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["+stage.benchmarks.x={a: 1}"], "stage.benchmarks.x={'a': 1} is not allowed: it must be a task with a source"),
        (["+stage.benchmarks.x=5"], "stage.benchmarks.x=5 is not allowed: it must be a task with a source"),
        (["+stage.benchmarks.x={source: arithmetic}"], "is not allowed: it must be a task with a source"),
        (
            ["+task@stage.benchmarks.x=aime24", "stage.benchmarks.x.source.test.file=nowhere.jsonl"],
            "stage.benchmarks.x: nowhere.jsonl is not there",
        ),
        (
            [GENERAL, "+stage.shares={reasoning: 3, gneral: 1}"],
            "stage.shares.gneral=1 is not allowed: the sources are reasoning, general",
        ),
        (["+stage.shares={base: 1}"], "stage.shares.base=1 is not allowed: the sources are reasoning"),
    ],
)
def test_what_cannot_go_into_a_sampled_set_or_be_kept_out_of_it_is_noticed_before_anything_is_made(
    command: Command, tmp_path: Path, overrides: list[str], message: str
) -> None:
    error = command("stage=sample", *overrides, configs=REAL_CONFIGS).error
    assert message in error and error.startswith("stage.") and list(tmp_path.iterdir()) == []


def test_an_input_may_have_a_share_of_a_sampled_set(command: Command) -> None:
    """Whether it is a data set is known when it has been made; what comes next is that there is no such folder."""
    more = ["+stage.inputs.more.folder=nowhere", "+stage.shares={reasoning: 3, more: 1}"]
    assert command("stage=sample", *more, configs=REAL_CONFIGS).error.startswith("stage.inputs.more.folder: ")


def test_a_students_text_comes_from_one_place(command: Command) -> None:
    both = "data.traces=traces.jsonl"
    error = command("stage=distill", both, "+stage.inputs.data={experiment: r1_800k_tiny}", configs=REAL_CONFIGS).error
    assert error.startswith("data.traces=") and "the stage has an input 'data' as well" in error


@pytest.mark.usefixtures("isolated")
def test_more_requests_than_are_held_out_are_noticed_before_anything_is_made(command: Command) -> None:
    error = command("experiment=r1_tiny", "stage.requests=100", configs=REAL_CONFIGS).error
    assert "held_out_problems=100 is not allowed: these requests give only 92 of them" in error
