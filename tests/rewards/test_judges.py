"""The judges of tasks: which reward each name is, and what it takes for right."""

from __future__ import annotations

import pytest

from r1_lightning.rewards.accuracy import AccuracyReward
from r1_lightning.rewards.judges import JUDGES, accuracy_by, accuracy_class
from r1_lightning.rewards.math_reward import MathReward
from r1_lightning.rewards.task_scorer import TaskScorer
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.text import Completion, Problem

AIME = Problem("Find it.", "42", "aime-1")


def said(answer: str) -> Completion:
    return Completion(f"<think>so</think><answer>{answer}</answer>", 9, True)


@pytest.mark.parametrize("answer", ["42", "\\boxed{42}", "042", "The answer is \\boxed{42}.", "#### 42", "$42$"])
def test_the_judge_of_aime_reads_what_published_models_write(answer: str) -> None:
    assert accuracy_by("math")(AIME, said(answer)).score == 1.0
    assert accuracy_by("math")(AIME, said(answer.replace("42", "43"))).score == 0.0


def test_the_exact_rule_reads_a_bare_number_only() -> None:
    exact = accuracy_by("exact")
    assert [exact(AIME, said(answer)).score for answer in ("42", "042", "\\boxed{42}")] == [1.0, 1.0, 0.0]


def test_each_name_is_a_class_that_serves_as_it() -> None:
    assert {judge: judge in accuracy_class(judge).judges for judge in JUDGES} == dict.fromkeys(JUDGES, True)
    assert isinstance(accuracy_by("exact", "r1"), AccuracyReward) and isinstance(accuracy_by("math"), MathReward)
    scorer = accuracy_by("reasoning_gym", "r1")
    assert isinstance(scorer, TaskScorer) and scorer.form == "r1"
    with pytest.raises(InvalidInput, match=r"task\.judge='taste' is not allowed"):
        accuracy_by("taste")  # type: ignore[arg-type]


def test_programs_are_run_and_the_rest_is_exact(isolated: None) -> None:
    assert accuracy_by("code")(AIME, said("42")).score == 1.0
