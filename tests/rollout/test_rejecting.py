"""Which samples are kept: hand-made samples through every reason, RFT's Algorithm 1 against a plain reading of it."""

from __future__ import annotations

import itertools

import pytest

from r1_lightning.rollout.rejecting import KEPT, REASONS, JudgedSample, KeepRules, distinct_by_equations
from r1_lightning.text.equations import equations
from r1_lightning.text.readability import Readability
from r1_lightning.text.reasoning_format import reasoned
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.text import Completion, Problem

PROBLEM = Problem("What is 7*8-19?", "37", "7*8|-19")
LEAK = "ten words of a benchmark"


def _judged(thinking: str, **changes: bool) -> JudgedSample:
    finished = changes.pop("finished", True)
    return JudgedSample(Completion(reasoned(thinking, 37), 20, finished), **{"is_right": True, **changes})


def _fates(*samples: JudgedSample, problem: Problem = PROBLEM, **rules: object) -> list[str]:
    return KeepRules(**rules).decide(problem, samples, lambda text: "bench" if LEAK in text else None)


# One sample for each reason, beside the one that is kept.
BY_REASON = {
    "unfinished": _judged("7*8=56, 56-19=37", finished=False, is_right=False, is_well_formed=False),
    "badly formed": _judged("7*8=56", is_well_formed=False, is_right=False),
    "not judged": _judged("7*8=56", is_right=False, is_judged=False),
    "wrong": _judged("7*8=54, 这", is_right=False),
    "mixed languages": _judged("so 7*8=56，减去"),
    "endless paragraph": _judged("step " + "\n".join(f"so {i}+1={i + 1}" for i in range(300))),
    "stray code": _judged("I run\n```python\nprint(7*8-19)\n```\n"),
    "repeats itself": _judged("let me think about it once more, 7*8=56. " * 9),
    "in another language": _judged("先算7*8=56，所以56-19=37"),
    "contaminated": _judged(f"{LEAK}, 8*7=56"),
    "same equations": _judged("7*8=56, 56-19=37"),
    "too near": _judged("7*8=56, so 56-19=37, 37+0=37"),
    "over the limit per problem": _judged("70-14=56, now 56-10=46 and last of all we have 46-9=37"),
}


def test_every_reason_by_hand() -> None:
    assert tuple(BY_REASON) == REASONS
    first = _judged("7*8=56, so 56-19=37")
    samples = [first, *BY_REASON.values()]
    assert _fates(*samples, max_per_problem=1, min_edit_distance=0.15) == [KEPT, *REASONS]


def test_each_reason_alone() -> None:
    """What does not depend on other samples is found without them, and the rest are kept where they stand alone."""
    alone = {reason: _fates(sample)[0] for reason, sample in BY_REASON.items()}
    depends = ("same equations", "too near", "over the limit per problem")
    assert alone == {reason: KEPT if reason in depends else reason for reason in REASONS}


def test_a_thinking_in_another_language_is_kept_where_nobody_asks_for_the_questions() -> None:
    chinese = _judged("先算7*8=56，所以56-19=37")
    assert _fates(chinese) == ["in another language"] and _fates(chinese, question_language=False) == [KEPT]
    assert _fates(_judged("7*8=56")) == [KEPT], "numbers alone are in no wrong language"


def test_code_is_no_fault_where_the_problem_has_tests() -> None:
    problem = Problem("Write f.", "", "f", metadata={"tests": "{}"})
    program = JudgedSample(Completion(reasoned("I write it.", "\n```python\nx = 1\n```\n"), 9, True), True)
    assert _fates(program) == ["stray code"] and _fates(program, problem=problem) == [KEPT]


def test_samples_without_equations_are_told_apart_by_distance_alone() -> None:
    texts = ["first we look at the left side", "first we look at the left sides", "no, begin with the right"]
    assert _fates(*map(_judged, texts)) == [KEPT, "too near", KEPT]  # 1 of 79 characters
    assert _fates(*map(_judged, texts), min_edit_distance=0.0) == [KEPT] * 3
    assert _fates(_judged("one"), _judged("one"), min_edit_distance=0.0) == [KEPT, "too near"]


def test_the_rule_of_equations_can_be_left_out() -> None:
    pair = (_judged("7*8=56"), _judged("seven times eight is given by 7*8=56 as everybody knows"))
    assert _fates(*pair) == [KEPT, "same equations"] and _fates(*pair, one_per_equations=False) == [KEPT, KEPT]


def test_the_first_come_within_the_limit() -> None:
    samples = [_judged(f"{i}+{i}={2 * i} " + "abcdefgh"[i] * 40) for i in range(6)]
    assert _fates(*samples) == [KEPT] * 4 + ["over the limit per problem"] * 2
    assert _fates(*samples, max_per_problem=None) == [KEPT] * 6


def test_on_a_tie_the_path_further_from_the_others_is_kept() -> None:
    """1+1=2 twice: to "xyz 2+2=4" (9 characters) the first has distance 5 ("xyz " and "2+2=4" aside), the second more."""
    texts = ["xyz 2+2=4", "xyz 1+1=2", "a much longer way to say that 1+1=2"]
    assert distinct_by_equations(texts, [0, 1, 2]) == {0, 2}
    assert distinct_by_equations(texts, [0, 2, 1]) == {0, 2}
    assert distinct_by_equations(texts, [1, 2]) == {1}, "no other path: both are at distance 0, and the first stays"


def test_algorithm_1_against_a_plain_reading() -> None:
    """The paper's loop, written with lists and a textbook distance, on every order of six paths."""
    paths = ["1+1=2", "so 1+1=2 it is", "2+2=4", "4 = 2+2=4 indeed, yes", "3+3=6 and 1+1=2", "words"]
    for order in itertools.permutations(range(6)):
        assert distinct_by_equations(paths, order) == _plain_reading(paths, order)


def _plain_reading(paths: list[str], order: tuple[int, ...]) -> set[int]:
    selected: list[int] = []
    for number in order:
        own = equations(paths[number])
        same = [other for other in selected if own and equations(paths[other]) == own]
        if not same:
            selected.append(number)
            continue
        rest = [other for other in selected if other != same[0]]
        mine = sum(_textbook(paths[number], paths[other]) for other in rest)
        if mine > sum(_textbook(paths[same[0]], paths[other]) for other in rest):
            selected[selected.index(same[0])] = number
    return set(selected)


def _textbook(a: str, b: str) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        previous, row[0] = row[0], i
        for j, y in enumerate(b, start=1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (x != y))
    return row[-1]


def test_bad_rules_are_named() -> None:
    for name, value in (("min_edit_distance", 1.1), ("max_per_problem", 0), ("one_per_equations", 1)):
        with pytest.raises(InvalidInput, match=f"{name}={value}"):
            KeepRules(**{name: value})
    assert KeepRules(readable=Readability(max_paragraph_chars=5)).decide(PROBLEM, [_judged("long enough")]) == [
        "endless paragraph"
    ]
