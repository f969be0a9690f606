"""A comparison: each model judged in its own form on the same problems, and requests by their known quality."""

from __future__ import annotations

import pytest

from r1_lightning.evaluation.comparison import Comparison
from r1_lightning.evaluation.runner import EvaluationConfig, Evaluator
from r1_lightning.rewards.accuracy import AccuracyReward
from r1_lightning.tasks.arithmetic import ArithmeticTask
from r1_lightning.tasks.family import FamilyPart, FamilyTask
from r1_lightning.tasks.safety import HARMFUL, SafetyTask
from r1_lightning.text.chat_template import ChatTemplate
from r1_lightning.text.reasoning_format import R1_FORM
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.text import Completion, Problem, Verdict
from tests.evaluation.test_runner import THINKER, WordTokenizer, answers, backbone_that_says, evaluator


class Says:
    """Right where the answer is this one."""

    name = "accuracy"

    def __init__(self, answer: str) -> None:
        self.answer = answer

    def __call__(self, problem: Problem, completion: Completion) -> Verdict:
        return Verdict(float(f"<answer>{self.answer}</answer>" in completion.text), "")


def test_a_model_is_judged_by_the_rule_of_its_own_form() -> None:
    """In R1-Zero's form 5 is right. In R1's the same text is badly formed (a tag in the summary), so nothing is, strictly."""
    comparison = Comparison({"r1_zero": Says("5"), "r1": Says("5")})
    fives = [answer == "5" for row in answers() for answer in row]
    measured = comparison(evaluator(), {}, backbone_that_says(*THINKER))
    assert measured["pass_at_1"].value == sum(fives) / len(fives)
    other = Evaluator(
        evaluator().problems, WordTokenizer(), ChatTemplate("t", "?", "!", R1_FORM), evaluator().config, seed=3
    )
    assert "quality_general" not in measured
    assert comparison(other, {}, backbone_that_says(*THINKER))["pass_at_1"].value == 0.0
    with pytest.raises(InvalidInput, match=r"stage\.accuracy='r1' is not allowed"):
        Comparison({"r1_zero": AccuracyReward()})(other, {}, backbone_that_says(*THINKER))


def test_requests_are_judged_by_their_known_quality() -> None:
    """The model answers 5 or 6 to anything: that refuses nothing, so it is unsafe where harm is asked for, and only there."""
    requests = [Problem("1", "", "a", metadata={HARMFUL: "yes"}), Problem("2", "", "b", metadata={HARMFUL: "no"})]
    heard: list[int] = []
    measured = Comparison({"r1_zero": AccuracyReward()})(
        evaluator(samples=2), {"safety": requests}, backbone_that_says(*THINKER), heard.append
    )
    assert measured["quality_safety"].value == 0.5
    assert sum(heard) == 3 * 2 + 2, "two samples of each problem, one reply to each request"


def test_requests_come_from_the_domains_that_the_task_has() -> None:
    parts = {"sums": FamilyPart(ArithmeticTask()), "safety": FamilyPart(SafetyTask(), "safety", is_tested=False)}
    comparison = Comparison({"r1": AccuracyReward()}, requests=7)
    found = comparison.requests_of(FamilyTask(parts))
    assert list(found) == ["safety"] and len(found["safety"]) == 7
    assert all(HARMFUL in problem.metadata for problem in found["safety"])
    assert comparison.requests_of(ArithmeticTask()) == {}
    assert len(Comparison({"r1": AccuracyReward()}, max_steps=2).requests_of(FamilyTask(parts))["safety"]) == 2


def test_a_short_trial_asks_less() -> None:
    assert Comparison({"r1": AccuracyReward()}, max_steps=2).settings(EvaluationConfig(problems=9)).problems == 2
    assert Comparison({"r1": AccuracyReward()}).settings(EvaluationConfig(problems=9)).problems == 9


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"accuracy": {}}, "a reward for each form, of r1_zero, r1"),
        ({"accuracy": {"r2": AccuracyReward()}}, "accuracy='r2'"),
        ({"requests": 0}, "requests=0"),
        ({"max_steps": 0}, "max_steps=0"),
    ],
)
def test_bad_values(values: dict, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Comparison(**{"accuracy": {"r1": AccuracyReward()}, **values})
