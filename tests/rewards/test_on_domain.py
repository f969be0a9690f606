"""Rewards for some kinds of problems only."""

from __future__ import annotations

import pytest

from r1_lightning.rewards.accuracy import AccuracyReward
from r1_lightning.rewards.combine import WeightedSum
from r1_lightning.rewards.model_score import ModelScoreReward
from r1_lightning.rewards.on_domain import OnDomain, domain_of
from r1_lightning.tasks.mixture import DOMAIN
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.text import Completion, Problem
from tests.rewards.test_model_score import Constant, LengthScorer

SUM = Problem("1+1", "2", "sum")
CHAT = Problem("Say hello", "", "chat", metadata={DOMAIN: "general"})
ANSWER = Completion("<think>a</think> <answer>2</answer>", 5, True)


def test_a_problem_without_a_kind_is_reasoning() -> None:
    assert (domain_of(SUM), domain_of(CHAT)) == ("reasoning", "general")


def test_others_get_nothing_and_the_order_is_kept() -> None:
    scorer = LengthScorer()
    inner = ModelScoreReward("helpful", squash="none", missing_score=-9.0, scorer=scorer)
    reward = OnDomain(inner, ["general"])
    verdicts = reward.judge_many([(SUM, ANSWER), (CHAT, ANSWER), (SUM, ANSWER), (CHAT, Completion("Hello", 1, True))])
    assert [v.score for v in verdicts] == [0.0, 2.0, 0.0, 6.0]  # " 2" and " Hello"
    assert verdicts[0].reason == "not asked: reasoning"
    assert scorer.seen == [[("Say hello", " 2"), ("Say hello", " Hello")]]
    assert reward.name == "helpful"


def test_a_plain_reward_is_asked_one_by_one() -> None:
    reward = OnDomain(AccuracyReward(), ["reasoning"])
    assert [v.score for v in reward.judge_many([(SUM, ANSWER), (CHAT, ANSWER)])] == [1.0, 0.0]
    assert reward(SUM, ANSWER).score == 1.0
    assert reward.part_of_model == {} and reward.with_scorers({}) is reward


def test_equations_8_to_10() -> None:
    """Reasoning: accuracy + format + language; general: the model + format + language. Here format + language is 1."""
    total = WeightedSum(
        [
            OnDomain(AccuracyReward(), ["reasoning"]),
            OnDomain(ModelScoreReward("helpful", squash="none", missing_score=0.0), ["general"]),
            Constant(),
        ]
    )
    assert total.part_of_model == {"helpful": "summary"}
    total = total.with_scorers({"helpful": LengthScorer()})
    assert total(SUM, ANSWER).total == 1.0 + 1.0
    assert total(CHAT, ANSWER).total == 2.0 + 1.0  # " 2" has two characters


def test_no_kind_at_all_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"reward.domains=\[\]"):
        OnDomain(Constant(), [])
