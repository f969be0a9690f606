"""The accuracy reward and the counts of an evaluation, case by case; tricks with the format earn no reward."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1_lightning.rewards.accuracy import AccuracyReward, Grade, grades
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.text import Completion, Problem, Verdict

PROBLEM = Problem("What is 1000+200?", "1200", "1000+200")


def grade(problem: Problem, given: Completion, allow_empty_think: bool = False) -> Grade:
    return grades([(problem, given)], AccuracyReward(), allow_empty_think)[0]


def completion(text: str, finished: bool = True) -> Completion:
    return Completion(text, n_tokens=len(text), finished=finished)


# text, finished, accurate, lenient, well formed; strict is accurate and well formed.
CASES = [
    ("<think>a</think><answer>1200</answer>", True, True, True, True),
    ("<think>a</think> <answer> 1,200.0 </answer>\n", True, True, True, True),
    ("<think>a</think><answer>1201</answer>", True, False, False, True),
    ("<think>a</think><answer>1200 apples</answer>", True, False, True, True),
    ("<answer>1200</answer>", True, True, True, False),
    ("<think></think><answer>1200</answer>", True, True, True, False),
    ("<think>a</think><answer>1200</answer>", False, True, True, False),  # cut off after the answer was closed
    ("<think>a</think><answer>1200", False, False, True, False),
    ("<think>a</think>1200", True, False, True, False),
    ("1000+200=1200", True, False, True, False),
    (r"\boxed{1200}", True, False, True, False),
    ("<think>a</think><answer>1200</answer><answer>1201</answer>", True, False, False, False),
    ("<think>a</think><answer>1201</answer><answer>1200</answer>", True, False, True, False),
    ("<think>1200<answer>1200</answer></think>", True, False, True, False),
    ("<think>1200</think><answer></answer>", True, False, True, False),
    ("<think>a</think><answer>1200 or 1201</answer>", True, False, False, True),
    ("", True, False, False, False),
]


@pytest.mark.parametrize(("text", "finished", "accurate", "lenient", "well_formed"), CASES)
def test_each_count(text: str, finished: bool, accurate: bool, lenient: bool, well_formed: bool) -> None:
    given_completion = completion(text, finished)
    expected = Grade(strict=accurate and well_formed, lenient=lenient, well_formed=well_formed, accurate=accurate)
    assert grade(PROBLEM, given_completion) == expected
    assert AccuracyReward()(PROBLEM, given_completion).score == float(accurate)
    assert AccuracyReward(strict=False)(PROBLEM, given_completion).score == float(lenient)


def test_a_forced_empty_think_is_well_formed_only_on_request() -> None:
    forced = completion("<think></think><answer>1200</answer>")
    assert not grade(PROBLEM, forced).strict
    assert grade(PROBLEM, forced, allow_empty_think=True).strict


def test_reasons_are_one_short_line_for_people() -> None:
    reward = AccuracyReward()
    assert reward(PROBLEM, completion("<answer>1200</answer>")).reason == "right"
    assert reward(PROBLEM, completion("<answer>7</answer>")).reason == "answered '7', expected '1200'"
    assert reward(PROBLEM, completion("1200")).reason == "no answer in its place"
    long = reward(PROBLEM, completion(f"<answer>{'x' * 500}\n{'y' * 400}</answer>")).reason
    assert "\n" not in long
    assert len(long) < 120


def test_answers_that_are_no_numbers_are_compared_as_text() -> None:
    problem = Problem("Which colour?", "Dark Blue", "colour")
    assert AccuracyReward()(problem, completion("<answer> dark  blue. </answer>")).score == 1.0
    assert AccuracyReward()(problem, completion("<answer>blue</answer>")).score == 0.0
    assert AccuracyReward(strict=False)(problem, completion("<answer>light 5</answer>")).score == 0.0


def test_the_name_is_the_metric() -> None:
    assert AccuracyReward().name == "accuracy"
    assert AccuracyReward(name="accuracy_lenient", strict=False).name == "accuracy_lenient"


PIECES = st.sampled_from(["<think>", "</think>", "<answer>", "</answer>", "1200", "1201", " ", "a", "\\boxed{1200}"])


@given(st.lists(PIECES, max_size=10).map("".join), st.booleans())
def test_the_counts_imply_each_other(text: str, finished: bool) -> None:
    result = grade(PROBLEM, completion(text, finished))
    assert not result.strict or (result.accurate and result.well_formed)
    assert not result.accurate or result.lenient
    assert not result.well_formed or finished


@given(st.text(), st.booleans())
def test_no_answer_block_no_reward(text: str, finished: bool) -> None:
    if "<answer>" not in text:
        assert AccuracyReward()(PROBLEM, completion(text + "1200", finished)).score == 0.0


@given(st.integers(-(10**9), 10**9), st.integers(-(10**9), 10**9))
def test_only_the_right_number_is_right(given_number: int, reference: int) -> None:
    problem = Problem("?", str(reference), "id")
    text = f"<think>a</think><answer>{given_number:,}</answer>"
    assert grade(problem, completion(text)).strict == (given_number == reference)


class HalfRight:
    """Partial credit, and no lenient form."""

    name = "accuracy"

    def __call__(self, problem: Problem, completion: Completion) -> Verdict:
        return Verdict(1.0 if completion.text == "whole" else 0.5, "")


def test_grades_ask_the_reward_and_partial_credit_is_no_accuracy() -> None:
    half, whole = grades([(PROBLEM, completion("half")), (PROBLEM, completion("whole"))], HalfRight())
    assert half == Grade(strict=False, lenient=False, well_formed=False, accurate=False)
    assert whole == Grade(strict=False, lenient=True, well_formed=False, accurate=True)


def test_what_is_right_is_not_judged_a_second_time() -> None:
    """Of three completions the lenient reward is asked about the two that are not right; one of them is right at the end."""
    asked: list[str] = []

    class Counting(AccuracyReward):
        def leniently(self) -> AccuracyReward:
            lenient = AccuracyReward(strict=False)

            def judge(problem: Problem, given: Completion) -> Verdict:
                asked.append(given.text)
                return lenient(problem, given)

            return judge  # type: ignore[return-value]

    texts = ("<think>1</think><answer>1200</answer>", "it is 1200", "it is 1201")
    found = grades([(PROBLEM, completion(text)) for text in texts], Counting())
    assert asked == list(texts[1:])
    assert [(grade.accurate, grade.lenient) for grade in found] == [(True, True), (False, True), (False, False)]


def test_r1_s_form_on_request() -> None:
    reward = AccuracyReward(form="r1")
    boxed, bare = completion("<think>a</think>So \\boxed{1,200}."), completion("<think>a</think> 1200")
    block = completion("<think>a</think><answer>1200</answer>")
    assert [reward(PROBLEM, given).score for given in (boxed, bare, block)] == [1.0, 1.0, 0.0]
    assert [AccuracyReward()(PROBLEM, given).score for given in (boxed, bare, block)] == [0.0, 0.0, 1.0]
    assert reward(PROBLEM, completion("<think>a</think>It is 1200, I think")).score == 0.0  # not nothing but the answer
    assert reward.leniently().form == "r1" and reward.leniently()(PROBLEM, block).score == 1.0
    with pytest.raises(InvalidInput, match="form='r2' is not allowed"):
        AccuracyReward(form="r2")  # type: ignore[arg-type]


def test_grades_by_form() -> None:
    pairs = [(PROBLEM, completion("<think>a</think>So \\boxed{1200}.")), (PROBLEM, completion("So \\boxed{1200}."))]
    formed, bare = grades(pairs, AccuracyReward(form="r1"), form="r1")
    assert formed == Grade(strict=True, lenient=True, well_formed=True, accurate=True)
    assert bare == Grade(strict=False, lenient=True, well_formed=False, accurate=True)
    assert not grades(pairs, AccuracyReward())[0].well_formed


@pytest.mark.parametrize(
    ("answer", "reference", "question", "score"),
    [
        ("48/2", "24", "What is 48/2?", 0.0),
        ("48 / 2", "24", "What is 48 / 2?", 0.0),
        ("2/4", "1/2", "Reduce 2/4.", 0.0),
        ("6/3", "2", "Divide 6 by 3.", 0.0),
        ("10/4", "2.5", "Write 10/4 as a decimal.", 0.0),
        ("24", "24", "What is 48/2?", 1.0),
        ("1/2", "1/2", "Is 1/2 or 2/3 smaller?", 1.0),
        ("0.5", "1/2", "Reduce 2/4.", 1.0),
        ("48/2", "24", "What is three times eight?", 1.0),
    ],
)
def test_the_question_s_own_fraction_is_no_answer(answer: str, reference: str, question: str, score: float) -> None:
    problem, given = (
        Problem(question, reference, "p"),
        Completion(f"<think>so</think><answer>{answer}</answer>", 9, True),
    )
    assert AccuracyReward()(problem, given).score == score == AccuracyReward(strict=False)(problem, given).score
