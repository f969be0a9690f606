"""A model's score as a reward: which part is shown, the scale, what is missing, and a model that comes later."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from r1_lightning.rewards.combine import WeightedSum
from r1_lightning.rewards.model_score import ModelScoreReward, sigmoid
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.text import BatchRewardFunction, Completion, ModelReward, Problem, Scorer, Verdict

PROBLEM = Problem("Say hello", "", "p")


class LengthScorer:
    """Scores a response by its characters; `seen` notes every call."""

    def __init__(self) -> None:
        self.seen: list[list[tuple[str, str]]] = []

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        self.seen.append(list(pairs))
        return [float(len(response)) for _, response in pairs]


def completion(text: str) -> Completion:
    return Completion(text, 1, True)


def made(**settings: object) -> tuple[ModelScoreReward, LengthScorer]:
    scorer = LengthScorer()
    return ModelScoreReward(**{"name": "helpful", "scorer": scorer, **settings}), scorer  # type: ignore[arg-type]


def test_the_summary_alone_is_shown() -> None:
    reward, scorer = made(squash="none", missing_score=-9.0)
    assert reward(PROBLEM, completion("<think>long thoughts</think> Hi")).score == 3.0  # " Hi"
    assert scorer.seen == [[("Say hello", " Hi")]]


def test_the_whole_is_shown() -> None:
    reward, scorer = made(part="whole")
    reward(PROBLEM, completion("<think>a</think> Hi "))
    assert scorer.seen == [[("Say hello", " <think>a</think> Hi")]]


def test_one_call_for_all_and_a_stated_score_for_what_is_missing() -> None:
    reward, scorer = made(squash="none", missing_score=-9.0)
    texts = ["Hi", "<think>never ends", "", "Hello"]
    verdicts = reward.judge_many([(PROBLEM, completion(text)) for text in texts])
    assert [v.score for v in verdicts] == [3.0, -9.0, -9.0, 6.0]
    assert verdicts[1].reason == "no summary to score"
    assert scorer.seen == [[("Say hello", " Hi"), ("Say hello", " Hello")]]
    assert made()[0](PROBLEM, completion("<think>")).score == 0.0


def test_a_model_that_rounds_by_company_cannot_part_equal_texts() -> None:
    """A scorer whose numbers depend on the place in the call: each text is asked once, per question."""

    class ByPlace(LengthScorer):
        def score(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
            return [value + 1e-7 * place for place, value in enumerate(super().score(pairs))]

    scorer = ByPlace()
    reward = ModelScoreReward("helpful", scorer=scorer)
    other = Problem("Say goodbye", "", "q")
    texts = ["Hi", "Hello", "Hi", "<think>never ends", "Hi", "<think>other thoughts</think>Hi"]
    rows = [(problem, completion(text)) for problem in (PROBLEM, other) for text in texts]
    scores = [verdict.score for verdict in reward.judge_many(rows)]
    for group in (scores[:6], scores[6:]):
        assert group[0] == group[2] == group[4] == group[5] != group[1] and group[3] == 0.0
    assert scorer.seen == [[(p.question, text) for p in (PROBLEM, other) for text in (" Hi", " Hello")]]


def test_where_nothing_is_there_no_model_is_asked() -> None:
    reward, scorer = made()
    assert reward(PROBLEM, completion("")).score == 0.0 and scorer.seen == []


def test_the_sigmoid_by_hand() -> None:
    # 1 / (1 + e^-2) = 0.8807971, and no overflow at either end.
    assert sigmoid(2.0) == pytest.approx(0.8807971, abs=1e-7)
    assert (sigmoid(0.0), sigmoid(-1e4), sigmoid(1e4)) == (0.5, 0.0, 1.0)
    assert sigmoid(-2.0) == pytest.approx(1 - sigmoid(2.0), abs=1e-15)
    assert made()[0](PROBLEM, completion("x")).score == pytest.approx(sigmoid(2.0), abs=0)  # " x": 2 characters


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": ""}, "reward.name=''"),
        ({"part": "thinking"}, "reward.part='thinking' is not allowed: it must be one of summary, whole"),
        ({"squash": "tanh"}, "reward.squash='tanh'"),
        ({"squash": "none"}, "reward.missing_score=None is not allowed: raw scores have no lowest one"),
        ({"missing_score": float("nan")}, "reward.missing_score=nan"),
    ],
)
def test_bad_settings(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        made(**settings)


def test_the_model_comes_later() -> None:
    bare = ModelScoreReward("helpful")
    with pytest.raises(RuntimeError, match="helpful has no model"):
        bare(PROBLEM, completion("Hi"))
    scorer: Scorer = LengthScorer()
    assert bare.with_scorers({"helpful": scorer}).scorer is scorer
    assert bare.with_scorers({"safety": scorer}).scorer is None
    assert bare.part_of_model == {"helpful": "summary"}
    assert isinstance(bare, ModelReward) and isinstance(bare, BatchRewardFunction)


class Constant:
    name = "constant"

    def __call__(self, problem: Problem, completion: Completion) -> Verdict:
        return Verdict(1.0, "always")


def test_in_a_weighted_sum() -> None:
    bare = WeightedSum([ModelScoreReward("helpful", squash="none", missing_score=0.0), Constant()], [0.5, 2.0])
    assert bare.part_of_model == {"helpful": "summary"}
    whole = bare.with_scorers({"helpful": LengthScorer()})
    assert whole(PROBLEM, completion("Hi")).total == 0.5 * 3 + 2.0
    with pytest.raises(RuntimeError, match="has no model"):  # the first one is unchanged
        bare(PROBLEM, completion("Hi"))
