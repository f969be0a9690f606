"""A problem source over rows: passes, leaks, documents, versions."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from r1_lightning.tasks.clean_traces import clean_rows
from r1_lightning.tasks.dataset_task import STEPS, DatasetTask, plain_document, reasoned_document
from r1_lightning.tasks.fields import Row, question_id
from r1_lightning.tasks.rows import Rows
from r1_lightning.text.reasoning_format import parse
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.text import Problem


@dataclass(frozen=True)
class Plain:
    """Rows with q, a, and sometimes s; an answer of "skip" is left out."""

    version: int = 1
    name: ClassVar[str] = "plain"

    def to_problem(self, row: Row) -> Problem | None:
        answer = row.answer("a")
        steps = {STEPS: row.text("s")} if "s" in row.fields else {}
        problem = Problem(row.text("q"), answer, question_id(self.name, row.text("q")), metadata=steps)
        return None if answer == "skip" else problem


def rows(path: Path, values: list[dict[str, str]]) -> Rows:
    path.write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")
    return Rows(str(path))


def numbered(start: int, stop: int, **more: str) -> list[dict[str, str]]:
    return [{"q": f"What is {number}?", "a": str(number), **more} for number in range(start, stop)]


@pytest.fixture
def task(tmp_path: Path) -> DatasetTask:
    train = rows(tmp_path / "train.jsonl", numbered(0, 7, s="Think."))
    return DatasetTask(Plain(), train, rows(tmp_path / "test.jsonl", numbered(5, 10)))


def test_passes_without_what_is_tested(task: DatasetTask) -> None:
    """Rows 5 and 6 also stand in the test file: five are left, and each pass has them all once."""
    assert (task.n_train, task.n_held_out) == (5, 5)
    passes = [[task.train_problem(3, 5 * n + i).answer for i in range(5)] for n in range(8)]
    assert all(sorted(one) == ["0", "1", "2", "3", "4"] for one in passes)
    assert len({tuple(one) for one in passes}) > 3  # 8 draws from 120 orders
    assert [problem.answer for problem in task.held_out_problems(2)] == ["5", "6"]
    assert task.train_problem(3, 11) == task.train_problem(3, 11)
    assert any(task.train_problem(3, i) != task.train_problem(4, i) for i in range(5))


def test_a_problem_comes_with_its_worked_solution(tmp_path: Path, task: DatasetTask) -> None:
    """Clean traces (tasks/clean_traces.py) are made of it: the row's steps word for word, line breaks and all."""
    solved = task.solved_problem(3, 2)
    assert (solved.problem, solved.steps, solved.is_prose) == (task.train_problem(3, 2), ("Think.",), True)
    (row,) = clean_rows(task, 3, 2, 1, "r1_zero")
    assert row["completion"] == f" <think>Think.</think><answer>{solved.problem.answer}</answer>"
    without = DatasetTask(Plain(), rows(tmp_path / "bare.jsonl", numbered(0, 3)))
    with pytest.raises(InvalidInput, match="plain has no worked solutions to write as traces"):
        without.solved_problem(0, 0)


def test_documents(task: DatasetTask) -> None:
    texts = list(task.documents(0, 0, 40))
    tagged = [text for text in texts if "<answer>" in text]
    assert 10 < len(tagged) < 30 and all(parse(text.rsplit("Assistant:", 1)[1]).well_formed for text in tagged)
    assert list(task.documents(0, 7, 5)) == texts[7:12]
    problem = Problem("Q?", "2", "id", metadata={STEPS: "S."})
    assert plain_document(problem) == "Question: Q?\nSolution: S.\nThe answer is 2."
    assert reasoned_document(problem).endswith("User: Q?. Assistant: <think> S. </think> <answer> 2 </answer>")


def test_what_a_task_does_not_have_is_said(tmp_path: Path, task: DatasetTask) -> None:
    benchmark = DatasetTask(Plain(), None, task.test)
    with pytest.raises(InvalidInput, match=r"plain has no training rows here.*task\.source\.train"):
        benchmark.train_problem(0, 0)
    with pytest.raises(InvalidInput, match="plain has no training rows"):
        next(iter(benchmark.documents(0, 0, 1)))
    without_steps = DatasetTask(Plain(), task.test)
    assert without_steps.train_problem(0, 0).answer in "56789"
    with pytest.raises(InvalidInput, match=r"plain has no worked solutions to pre-train on: .*init_from"):
        next(iter(without_steps.documents(0, 0, 1)))
    with pytest.raises(InvalidInput, match="plain has no test rows"):
        DatasetTask(Plain(), task.test, held_out=0).held_out_problems(1)
    with pytest.raises(InvalidInput, match="held_out_problems=0"):
        task.held_out_problems(0)
    with pytest.raises(InvalidInput, match="rows are needed"):
        DatasetTask(Plain())


def test_rows_may_be_left_out_but_not_all(tmp_path: Path) -> None:
    some = rows(tmp_path / "a.jsonl", [*numbered(0, 2), {"q": "x", "a": "skip"}])
    assert DatasetTask(Plain(), some, held_out=0).n_train == 2
    with pytest.raises(InvalidInput, match=r"b\.jsonl: plain leaves out every row"):
        _ = DatasetTask(Plain(), rows(tmp_path / "b.jsonl", [{"q": "x", "a": "skip"}])).content_version
    with pytest.raises(InvalidInput, match="no training question is left"):
        _ = DatasetTask(Plain(), some, some).content_version


def test_the_version_follows_the_adaptor_and_both_files(tmp_path: Path, task: DatasetTask) -> None:
    other = rows(tmp_path / "other.jsonl", numbered(5, 9))
    same = rows(tmp_path / "same.jsonl", numbered(5, 10))
    versions = [
        each.content_version
        for each in (
            task,
            DatasetTask(Plain(), task.train, same),
            DatasetTask(Plain(2), task.train, task.test),
            DatasetTask(Plain(), task.train, other),
            DatasetTask(Plain(), other),
        )
    ]
    assert versions[0] == versions[1] and len(set(versions)) == 4
    assert versions[0].startswith("plain-1-") and versions[2].startswith("plain-2-")


def test_there_are_no_more_held_out_problems_than_rows(task: DatasetTask) -> None:
    """Sixty rows of one's own, and 500 asked for: here five, and six, and half a thousand."""
    five = task.held_out_problems(5)
    assert len(five) == 5 and task.held_out_problems(6) == task.held_out_problems(500) == five


@pytest.mark.parametrize("test", [None, Rows(), Rows(split="test")], ids=["none", "unnamed", "its split"])
@pytest.mark.parametrize(("n", "limit", "held_out"), [(60, 500, 6), (60, 4, 4), (9, 500, 1), (2, 500, 1), (1, 500, 0)])
def test_of_a_training_file_alone_one_question_in_ten_is_held_out(
    tmp_path: Path, test: Rows | None, n: int, limit: int, held_out: int
) -> None:
    only = rows(tmp_path / "mine.jsonl", numbered(0, n))
    task = DatasetTask(Plain(), only, test, limit)
    assert (task.n_train, task.n_held_out) == (n - held_out, held_out)
    if held_out:
        tested = {problem.answer for problem in task.held_out_problems(500)}
        trained = {task.train_problem(0, index).answer for index in range(task.n_train)}
        assert len(tested) == held_out and not tested & trained and len(tested | trained) == n
        assert task.notes == [f"no test rows: {held_out} of {n} training problems are held out"]
        assert task.content_version != DatasetTask(Plain(), only, held_out=0).content_version


def test_a_question_that_stands_twice_is_on_one_side(tmp_path: Path) -> None:
    task = DatasetTask(Plain(), rows(tmp_path / "x.jsonl", numbered(0, 20) * 2))
    tested = [problem.answer for problem in task.held_out_problems(500)]
    trained = [task.train_problem(0, index).answer for index in range(task.n_train)]
    assert len(tested) == 2 and len(set(tested)) == 2 and len(trained) == 36 and not set(tested) & set(trained)


def test_test_rows_beside_the_training_rows_are_taken(tmp_path: Path) -> None:
    """In the same folder, by the name of the file or of the split."""
    train = rows(tmp_path / "my-train.jsonl", numbered(0, 7))
    rows(tmp_path / "my-test.jsonl", numbered(5, 10))
    (tmp_path / "folder").mkdir()
    rows(tmp_path / "folder" / "train-00000.jsonl", numbered(0, 7))
    rows(tmp_path / "folder" / "test-00000.jsonl", numbered(5, 10))
    for given in (train, Rows(str(tmp_path / "folder"))):
        task = DatasetTask(Plain(), given, Rows(split="test"))
        assert (task.n_train, task.n_held_out) == (5, 5)
    training = rows(tmp_path / "training.jsonl", numbered(0, 20))  # a name that only begins so
    assert DatasetTask(Plain(), training).n_held_out == 2


def test_rows_that_cannot_be_read_are_refused_or_counted(tmp_path: Path) -> None:
    broken = rows(tmp_path / "x.jsonl", [{"q": "a"}, *numbered(0, 3), {"q": "", "a": "1"}])
    with pytest.raises(InvalidInput, match="line 1: the field 'a' is missing"):
        _ = DatasetTask(Plain(), broken, held_out=0).n_train
    task = DatasetTask(Plain(), broken, held_out=0, unreadable="drop")
    assert task.n_train == 3
    place = tmp_path / "x.jsonl"
    assert task.notes == [f"{place}: unreadable: 2 (first: {place}, line 1: the field 'a' is missing)"]
    with pytest.raises(InvalidInput, match=r"leaves out every row \(unreadable: 1 \(first: "):
        _ = DatasetTask(Plain(), rows(tmp_path / "y.jsonl", [{"q": "a"}]), unreadable="drop").n_train
    for bad in ({"unreadable": "skip"}, {"held_out": -1}):
        with pytest.raises(InvalidInput, match=f"task.source.{next(iter(bad))}="):
            DatasetTask(Plain(), broken, **bad)  # type: ignore[arg-type]


def test_where_a_problem_stands(tmp_path: Path, task: DatasetTask) -> None:
    problem = next(task.train_problem(0, i) for i in range(5) if task.train_problem(0, i).answer == "3")
    assert task.place_of(problem) == f"{tmp_path / 'train.jsonl'}, line 4"
    assert task.place_of(Problem("other", "", "id")) == ""


def test_nothing_is_read_before_it_is_asked_for(tmp_path: Path) -> None:
    task = DatasetTask(Plain(), Rows(str(tmp_path / "later.jsonl")))
    with pytest.raises(InvalidInput, match="not readable"):
        task.train_problem(0, 0)
    rows(tmp_path / "later.jsonl", numbered(0, 1))
    assert task.train_problem(0, 0).answer == "0"
