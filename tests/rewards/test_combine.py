"""The weighted sum of rewards, by hand, and a bad score that stops the run by name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1_lightning.rewards.accuracy import AccuracyReward
from r1_lightning.rewards.combine import WeightedSum
from r1_lightning.rewards.format import FormatReward
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.text import Completion, Problem, Verdict

PROBLEM = Problem("What is 2+3?", "5", "2+3")
COMPLETION = Completion("5", 1, True)


@dataclass
class Fixed:
    """A reward that always gives the same score, whatever it is."""

    name: str
    score: Any

    def __call__(self, problem: Problem, completion: Completion) -> Any:
        if isinstance(self.score, float):
            return Verdict(self.score, "fixed")
        return SimpleNamespace(score=self.score, reason="what a Verdict would not hold")


@pytest.mark.parametrize(
    ("text", "accuracy", "form"),
    [
        ("<think>a</think><answer>5</answer>", 1.0, 1.0),
        ("<think>a</think><answer>6</answer>", 0.0, 1.0),
        ("<answer>5</answer>", 1.0, 0.0),
        ("5", 0.0, 0.0),
    ],
)
def test_r1_zero_adds_accuracy_and_format_with_equal_weight(text: str, accuracy: float, form: float) -> None:
    combined = WeightedSum([AccuracyReward(), FormatReward()])(PROBLEM, Completion(text, 1, True))
    assert combined.total == accuracy + form
    assert combined.scores == {"accuracy": accuracy, "format": form}
    assert set(combined.verdicts) == {"accuracy", "format"}


def test_weights_by_order_and_by_name_give_the_same() -> None:
    rewards = [Fixed("a", 0.5), Fixed("b", 2.0)]
    # 0.5 * 4 + 2.0 * -0.25 = 2.0 - 0.5 = 1.5
    assert WeightedSum(rewards, [4, -0.25])(PROBLEM, COMPLETION).total == 1.5
    assert WeightedSum(rewards, {"b": -0.25, "a": 4})(PROBLEM, COMPLETION).total == 1.5
    assert WeightedSum({"x": rewards[0], "y": rewards[1]}, [4, -0.25])(PROBLEM, COMPLETION).total == 1.5
    # The breakdown is unweighted.
    assert WeightedSum(rewards, [4, -0.25])(PROBLEM, COMPLETION).scores == {"a": 0.5, "b": 2.0}


@pytest.mark.parametrize("score", [None, math.nan, math.inf, -math.inf, "1.0", True])
def test_a_score_that_is_no_finite_number_names_its_reward(score: Any) -> None:
    with pytest.raises(InvalidInput, match="reward helpful: score="):
        WeightedSum([Fixed("fine", 1.0), Fixed("helpful", score)])(PROBLEM, COMPLETION)


def test_a_reward_that_returns_no_verdict_is_named() -> None:
    reward = Fixed("lazy", 1.0)
    with pytest.raises(InvalidInput, match="reward lazy: score=None"):
        WeightedSum([_Returning(reward.name, None)])(PROBLEM, COMPLETION)
    with pytest.raises(InvalidInput, match="reward bare: score=None"):
        WeightedSum([_Returning("bare", 1.0)])(PROBLEM, COMPLETION)


@dataclass
class _Returning:
    name: str
    value: Any

    def __call__(self, problem: Problem, completion: Completion) -> Any:
        return self.value


@pytest.mark.parametrize(
    ("names", "weights", "message"),
    [
        ([], None, "at least one reward"),
        (["a", "a"], None, "names of the rewards must differ"),
        (["a", "b"], [1.0], r"weights=\[1\.0\]"),
        (["a"], {"b": 1.0}, "exactly the names a"),
        (["a"], {"a": 1.0, "b": 1.0}, "exactly the names a"),
        (["a"], [math.nan], r"weights\.a=nan"),
        (["a"], [math.inf], r"weights\.a=inf"),
    ],
)
def test_bad_settings_are_named(names: list[str], weights: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        WeightedSum([Fixed(name, 1.0) for name in names], weights)


@given(st.lists(st.tuples(st.floats(-100, 100), st.floats(-100, 100)), min_size=1, max_size=8))
def test_the_order_of_the_rewards_does_not_matter(pairs: list[tuple[float, float]]) -> None:
    rewards = [Fixed(str(number), score) for number, (score, _) in enumerate(pairs)]
    weights = {str(number): weight for number, (_, weight) in enumerate(pairs)}
    forward = WeightedSum(rewards, weights)(PROBLEM, COMPLETION).total
    backward = WeightedSum(rewards[::-1], weights)(PROBLEM, COMPLETION).total
    assert forward == backward  # math.fsum rounds once, so not even the last bit differs


def test_a_late_reward_is_not_even_asked_before_its_step() -> None:
    asked: list[str] = []

    class Costly(Fixed):
        def __call__(self, problem: Problem, completion: Completion) -> Any:
            asked.append(self.name)
            return super().__call__(problem, completion)

    reward = WeightedSum([Fixed("rule", 1.0), Costly("preference", 0.5)], from_step={"preference": 1300})
    assert [reward(PROBLEM, COMPLETION, step).total for step in (0, 1299, 1300, 1700)] == [1.0, 1.0, 1.5, 1.5]
    assert len(asked) == 2


@pytest.mark.parametrize("score", [None, math.nan, math.inf, "1", True])
def test_a_bad_score_makes_the_total_nan_where_its_group_is_dropped(score: Any) -> None:
    combined = WeightedSum([Fixed("good", 1.0), Fixed("bad", score)], on_bad_score="drop_group")(PROBLEM, COMPLETION)
    assert math.isnan(combined.total) and combined.scores["good"] == 1.0
    assert "reward bad: score=" in combined.verdicts["bad"].reason


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"from_step": {"other": 1}}, "reward.from_step='other'"),
        ({"from_step": {"a": -1}}, "reward.from_step.a=-1"),
        ({"from_step": {"a": 5}}, "one reward must count from step 0"),
        ({"on_bad_score": "ignore"}, "reward.on_bad_score='ignore'"),
    ],
)
def test_bad_rules_are_named(settings: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput, match=field):
        WeightedSum([Fixed("a", 1.0)], **settings)


def test_a_reward_that_judges_many_sees_all_at_once_and_the_sum_is_the_same() -> None:
    class Lengths:
        name = "lengths"
        asked: list[int] = []

        def __call__(self, problem: Problem, completion: Completion) -> Verdict:
            return self.judge_many([(problem, completion)])[0]

        def judge_many(self, pairs: Sequence[tuple[Problem, Completion]]) -> list[Verdict]:
            self.asked.append(len(pairs))
            return [Verdict(float(len(c.text)), "", timed_out=not c.text) for _, c in pairs if c.text != "lost"]

    reward = WeightedSum([Lengths()], weights=[2.0])
    pairs = [(Problem("?", "1", "p"), Completion(text, 1, True)) for text in ("abc", "", "ab")]
    together = reward.judge_many(pairs)
    assert Lengths.asked == [3] and [verdict.total for verdict in together] == [6.0, 0.0, 4.0]
    assert [verdict.timed_out for verdict in together] == [False, True, False]
    assert [reward(*pair) for pair in pairs] == together
    with pytest.raises(InvalidInput, match="reward lengths"):
        reward.judge_many([*pairs, (pairs[0][0], Completion("lost", 1, True))])
