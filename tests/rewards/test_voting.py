"""The vote of samples: equal answers are those that the reward holds to be equal, and programs have no vote."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from r1_lightning.rewards import voting
from r1_lightning.rewards.accuracy import AccuracyReward, grades
from r1_lightning.rewards.math_reward import MathReward
from r1_lightning.rewards.task_accuracy import TaskAccuracy
from r1_lightning.rewards.voting import is_majority_right, majorities_right, votes
from r1_lightning.types.text import Completion, Problem, RewardFunction, Verdict


@pytest.fixture(scope="module")
def maths() -> Iterator[MathReward]:
    reward = MathReward(workers=1)
    yield reward
    reward.close()


def written(answer: str) -> Completion:
    return Completion(f"<think>so</think><answer>{answer}</answer>", 9, True)


def elected(reward: RewardFunction, reference: str, answers: Sequence[str], **metadata: str) -> bool | None:
    """Whether the vote of `answers` is right, of one problem alone."""
    problem = Problem("?", reference, "p", metadata=metadata)
    row = [written(answer) for answer in answers]
    right = [grade.lenient for grade in grades([(problem, sample) for sample in row], reward)]
    return majorities_right(reward, [problem], [row], [right])[0]


@pytest.mark.parametrize(
    ("reference", "answers", "right"),
    [
        ("42", [r"\boxed{42}"] * 64, True),
        (r"\frac12", [r"\dfrac12"] * 3, True),
        ("x+1", ["1+x", "x+1", "x"], True),
        ("B", ["(B)", "B.", "A"], True),
        ("42", ["The answer is 42.", "42", "41"], True),
        # Right answers in many hands are one class: 1/2 five ways against three times 1/3.
        (r"\frac12", ["0.5", "1/2", "2/4", r"\frac{1}{3}", r"\frac13", "1/3", r"\tfrac12"], True),
        # So are wrong ones: x+2 three ways against x+1 twice.
        ("x+1", ["x+2", "2+x", "x+1", "1+x", r"\frac{2x+4}{2}"], False),
        (r"\sqrt{2}", [r"\sqrt{3}", r"\frac{3}{\sqrt{3}}", r"\sqrt{2}"], False),
        # Of two classes of one size the one that voted first wins.
        ("x+1", ["1+x", "x+2", "2+x", "x+1"], True),
        ("x+1", ["2+x", "1+x", "x+1", "x+2"], False),
        # What cannot be read is no vote, and no vote is never right.
        ("x+1", ["", "", "", "x+1"], True),
        ("x+1", ["", "", ""], False),
        ("", ["blah blah nothing here"] * 8, False),
        ("", [""] * 8, False),
        ("42", ["41", "43", "44"], False),
    ],
)
def test_the_vote_uses_the_equality_of_the_reward(
    maths: MathReward, reference: str, answers: list[str], right: bool
) -> None:
    assert elected(maths, reference, answers) is right


@pytest.mark.parametrize(
    ("reference", "answers", "right"),
    [
        ("42", ["42.0", "42", "41", "41", "042"], True),
        ("42", ["It is 42 apples", "42", "41"], True),
        ("42", ["It is 41 apples", "41", "42"], False),
        ("blue", ["Blue", "blue.", "red", "red"], True),
        ("", ["blah"] * 8, False),
        ("", [""] * 8, False),
    ],
)
def test_the_exact_rule_votes_by_its_own(reference: str, answers: list[str], right: bool) -> None:
    assert elected(AccuracyReward(), reference, answers) is right


class Scorer:
    """Any text of even length is right; it knows no answers that are equal."""

    name = "accuracy"

    def __call__(self, problem: Problem, completion: Completion) -> Verdict:
        return Verdict(float(len(completion.text) % 2 == 0), "")


def test_a_reward_without_an_equality_votes_by_text() -> None:
    """Two right answers that differ are two classes: three times "b" (31 + 1 + 9 = 41 characters, odd) win."""
    assert len(written("b").text) % 2 == 1
    assert elected(Scorer(), "", ["aa", "cc", "b", "b", "b", "dd"]) is False
    assert elected(Scorer(), "", ["aa", "aa", "b", "dd"]) is True


def test_programs_have_no_vote() -> None:
    reward = TaskAccuracy(code=AccuracyReward(), other=AccuracyReward())
    assert elected(reward, "", ["print(1)"] * 4, tests="{}") is None
    assert elected(reward, "42", ["42.0", "42", "41"]) is True
    assert elected(TaskAccuracy(code=AccuracyReward(), other=Scorer()), "", ["aa", "b", "aa"]) is True


def test_equal_texts_are_compared_once_and_only_where_it_can_change_the_vote(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Sequence[tuple[str, str]]] = []

    class Asked(MathReward):
        def equal_many(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
            asked.append(pairs)
            return [False] * len(pairs)

    reward = Asked(workers=1)
    assert elected(reward, "5", ["6", "7", "8", "9"]) is False  # none is right
    assert elected(reward, "5", ["5", "5.0", "6", "7"]) is True  # two of the others are not more than two
    assert elected(reward, "5", ["5", "6", "6"]) is False  # one text alone has more
    assert asked == []
    assert elected(reward, "5", ["5", "5", "6", "6", "7", "8", "8"]) is True
    # The wrong texts by votes are 6, 8 (two each) and 7: 6 with both others; then 8 and 7 could still be three.
    assert asked == [[("8", "6"), ("7", "6")], [("7", "8")]]
    asked.clear()
    monkeypatch.setattr(voting, "MAX_CLASSES", 4)
    assert elected(reward, "0", ["0", *map(str, range(1, 31))]) is True
    assert [len(pairs) for pairs in asked] == [29, 28, 27, 26]  # and the rest are classes of their own


def test_classes_are_numbered_in_the_order_of_first_votes(maths: MathReward) -> None:
    """x+2 in three spellings, no answer, and the right answer in two."""
    problem = Problem("?", "x+1", "p")
    row = [written(answer) for answer in ("x+2", "", "1+x", "2+x", "x+1", r"\frac{2x+4}{2}")]
    right = [False, False, True, False, True, False]
    (cast,) = votes(maths, [problem], [row], [right])
    assert cast == [0, None, 1, 0, 1, 0] and not is_majority_right(cast, right)
    assert is_majority_right(cast[1:5], right[1:5])  # two right votes against one
    assert not is_majority_right([None, None], [False, False])


def test_programs_vote_by_what_they_do() -> None:
    """Right ones together, wrong ones by the first case that they get wrong and their output there; errors do not vote."""
    problem = Problem("?", "", "p", metadata={"tests": "{}"})
    row = [written("code")] * 6
    right = [False, True, False, False, True, False]
    behaviours = ["0:aa", "", "0:bb", "", "", "0:aa"]
    assert votes(AccuracyReward(), [problem], [row], [right], [behaviours]) == [[0, 1, 2, None, 1, 0]]
    assert votes(AccuracyReward(), [problem], [row], [right]) == [[None] * 6]
    assert majorities_right(AccuracyReward(), [problem], [row], [right]) == [None]
    assert not is_majority_right([0, 1, 2, None, 1, 0], right)  # of equals the first to vote wins: a wrong one
    assert is_majority_right([0, 1, 2, None, 1], right[:5])
