"""Records of an evaluation's samples say why: the accuracy's reason, the broken rules of form, and the answer that was read."""

from __future__ import annotations

from pathlib import Path

import pytest

from r1_lightning.evaluation.judged import Rules, judge
from r1_lightning.evaluation.kept import Kept
from r1_lightning.review.evaluation_records import EvaluationRecords
from r1_lightning.review.rollout_records import RolloutRecord, read_records
from r1_lightning.rewards.accuracy import AccuracyReward
from r1_lightning.rewards.format import FormatReward
from r1_lightning.text.code_tests import TESTS
from r1_lightning.types.text import Completion, Problem


def record_of(folder: Path, text: str, finished: bool = True, **metadata: str) -> RolloutRecord:
    problem, completion = Problem("1+1?", "2", "p1", metadata=metadata), Completion(text, 9, finished)
    records = EvaluationRecords()
    records.open(folder, 1, 10**6)
    (judged,) = judge([(problem, [completion])], Rules(AccuracyReward()))
    Kept(records, 3, "eval").write([(4, "Q: 1+1?", (problem, [completion], judged))], FormatReward())
    (record,) = read_records(folder)
    assert (record.step, record.prompt_index, record.sample, record.evaluation) == (3, 4, 0, "eval")
    assert (record.prompt, record.question, record.reference, record.problem_id) == ("Q: 1+1?", "1+1?", "2", "p1")
    assert (record.completion, record.length, record.finished) == (text, 9, finished)
    return record


@pytest.mark.parametrize(
    ("text", "reward", "answer", "accuracy", "form"),
    [
        ("<think>a</think> <answer>2</answer>", 1.0, "2", (1.0, "right"), (1.0, "well formed")),
        ("<think>a</think> <answer>3</answer>", 0.0, "3", (0.0, "answered '3', expected '2'"), (1.0, "well formed")),
        ("it is 2", 0.0, "2", (0.0, "right, but not in its place"), (0.0, None)),
    ],
)
def test_the_reasons(
    tmp_path: Path, text: str, reward: float, answer: str, accuracy: tuple[float, str], form: tuple[float, str | None]
) -> None:
    record = record_of(tmp_path, text)
    first, second = record.parts
    assert (record.reward, record.extracted, record.mixed_language) == (reward, answer, False)
    assert (first.name, first.score, first.reason) == ("accuracy", *accuracy)
    assert (second.name, second.score) == ("format", form[0]) and (form[1] is None or second.reason == form[1])
    assert second.reason != "" and (second.score == 1.0) == (second.reason == "well formed")


def test_a_completion_that_was_cut_off_says_so(tmp_path: Path) -> None:
    record = record_of(tmp_path, "<think>a</think> <answer>2</answer>", finished=False)
    assert record.reward == 0.0 and record.parts[1].reason == "cut off by the length limit"


def test_a_program_has_no_answer_to_read(tmp_path: Path) -> None:
    tests = '{"kind": "assert", "tests": ["assert f(1) == 2"]}'
    try:
        record = record_of(tmp_path, "<answer>2</answer>", **{TESTS: tests})
    except ValueError:
        pytest.fail("judging a program by the exact rule reads no tests")
    assert record.extracted is None
