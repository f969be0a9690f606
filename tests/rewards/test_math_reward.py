"""The mathematics reward: where the answer stands, what needs no process, a whole rollout at once, and all of GSM8K."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from r1_lightning.rewards.accuracy import AccuracyReward, grades
from r1_lightning.rewards.math_reward import MathReward
from r1_lightning.rewards.verifiers.pool import TIMED_OUT, PoolVerdict
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.text import BatchRewardFunction, Completion, Problem
from tests.rewards.test_accuracy import CASES, PROBLEM


@pytest.fixture(scope="module")
def reward() -> Iterator[MathReward]:
    reward = MathReward(workers=1)
    yield reward
    reward.close()


def written(answer: str) -> Completion:
    return Completion(f"<think>so</think><answer>{answer}</answer>", 9, True)


@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [
        (r"\frac{\sqrt{3}}{3}", r"\frac{1}{\sqrt{3}}", 1.0),
        (r"Thus \boxed{1+x} is it", "x+1", 1.0),
        (r"\boxed{x} or \boxed{x+1}", "x+1", 1.0),  # the last of several
        (r"\boxed{x+1} or \boxed{x}", "x+1", 0.0),
        ("48/2 = 24\n#### 24", "24", 1.0),
        ("#### 24\n#### 25", "24", 0.0),
        ("24 or 25", "24", 0.0),
    ],
)
def test_the_answer_in_its_place(reward: MathReward, answer: str, reference: str, score: float) -> None:
    assert reward(Problem("?", reference, "p"), written(answer)).score == score


@pytest.mark.parametrize(("text", "finished", "accurate", "lenient", "well_formed"), CASES)
def test_numbers_score_as_the_accuracy_reward_scores_them(
    reward: MathReward, text: str, finished: bool, accurate: bool, lenient: bool, well_formed: bool
) -> None:
    given = Completion(text, len(text), finished)
    free = copy.copy(reward)
    free.strict = False
    verdict, expected = reward(PROBLEM, given), AccuracyReward()(PROBLEM, given)
    if "1200 apples" in text and accurate is False and "<answer>" in text:  # a noun may stand behind a number here
        assert verdict.score == 1.0 and expected.score == 0.0
        return
    assert verdict.score == expected.score and verdict.reason.startswith(expected.reason)
    assert free(PROBLEM, given).score == AccuracyReward(strict=False)(PROBLEM, given).score == float(lenient)
    free.close()


def test_a_whole_rollout_at_once_gives_the_same_verdicts(reward: MathReward, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(reward, BatchRewardFunction) and not isinstance(AccuracyReward(), BatchRewardFunction)
    pairs = [(Problem("?", "x+1", "p"), written(answer)) for answer in ("1+x", "x", "", "x+1", "1+x")]
    pairs.append((Problem("?", "42", "q"), written("42")))
    single = [reward(*pair) for pair in pairs]
    asked: list[Sequence[tuple[str, str]]] = []
    compare_many = reward.pool.compare_many
    monkeypatch.setattr(reward.pool, "compare_many", lambda pairs: asked.append(pairs) or compare_many(pairs))
    assert reward.judge_many(pairs) == single
    assert [verdict.score for verdict in single] == [1, 0, 0, 1, 1, 1]
    assert asked == [[("1+x", "x+1"), ("x", "x+1"), ("1+x", "x+1")]]  # one call, with what is hard alone
    assert reward.judge_many([]) == []


def test_an_evaluation_counts_by_the_same_rule_strictly_and_leniently(reward: MathReward) -> None:
    problem = Problem("", "1/2", "p")
    texts = ["<think>a</think><answer>0.5</answer>", r"\boxed{\frac{2}{4}}", "<think>a</think><answer>0.6</answer>"]
    pairs = [(problem, Completion(text, 1, True)) for text in texts]
    assert [(g.strict, g.lenient) for g in grades(pairs, reward)] == [(True, True), (False, True), (False, False)]
    assert reward.leniently().pool is reward.pool and reward.strict


def test_a_timeout_is_said(reward: MathReward, monkeypatch: pytest.MonkeyPatch) -> None:
    crashed = PoolVerdict(False, "the verifier crashed on it")
    monkeypatch.setattr(reward.pool, "compare_many", lambda pairs: [TIMED_OUT, crashed])
    late, broken = reward.judge_many([(Problem("?", "x+1", "p"), written(answer)) for answer in ("y", "z")])
    assert (late.score, late.timed_out, broken.score, broken.timed_out) == (0.0, True, 0.0, False)
    assert late.reason == "answered 'y', expected 'x+1' (timed out)" and "crashed" in broken.reason


def test_copies_have_a_pool_of_their_own(reward: MathReward) -> None:
    for other in (copy.deepcopy(reward), pickle.loads(pickle.dumps(reward))):
        assert other.pool is not reward.pool and other.pool.workers == 1 and other.name == reward.name
        assert other.pool.process_ids() == []


@pytest.mark.parametrize("file", ["train.jsonl", "test.jsonl"])
def test_every_solution_of_gsm8k_is_right_and_its_neighbours_are_not(file: str, shared_dir: Path) -> None:
    path = shared_dir / "data" / "gsm8k" / file
    if not path.is_file():
        pytest.skip(f"needs {file} of GSM8K in ../shared/data/gsm8k")
    strict, free = MathReward(workers=1), MathReward(strict=False, workers=1)
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert len(rows) >= 1_000
    for row in rows:
        solution, _, reference = row["answer"].rpartition("#### ")
        problem, number = Problem(row["question"], reference, "p"), int(reference.replace(",", ""))
        assert free(problem, Completion(row["answer"], 9, True)).score == 1.0
        assert strict(problem, written(reference)).score == strict(problem, written(f"#### {reference}")).score == 1.0
        for other in (number - 1, number + 1):
            assert strict(problem, written(str(other))).score == 0.0
            assert free(problem, Completion(f"{solution}#### {other:,}", 9, True)).score == 0.0
    assert strict.pool.process_ids() == free.pool.process_ids() == []


def test_r1_s_form_on_request() -> None:
    """Numbers and words are decided at once, so no process is started."""
    reward = MathReward(form="r1")
    texts = ["<think>a</think>So \\boxed{24}.", "<think>a</think>24", "<think>a</think><answer>24</answer>"]
    problem = Problem("q", "24", "id")
    assert [reward(problem, Completion(text, 9, True)).score for text in texts] == [1.0, 1.0, 0.0]
    assert reward.leniently().form == "r1" and copy.deepcopy(reward).form == "r1"
    with pytest.raises(InvalidInput, match="form='r2' is not allowed"):
        MathReward(form="r2")  # type: ignore[arg-type]
