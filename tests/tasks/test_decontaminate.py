"""Decontamination: planted leaks are found, near misses are not, and the benchmark is named."""

from __future__ import annotations

import pytest

from r1_lightning.tasks.arithmetic import ArithmeticTask
from r1_lightning.tasks.decontaminate import Decontaminator, held_out_questions
from r1_lightning.tasks.mixture import MixturePart, MixtureTask
from r1_lightning.types.errors import InvalidInput

LONG = "A train leaves the station at noon and travels at sixty miles per hour until it stops"  # 17 words
CHINESE = "小明有十二个苹果，他又买了三十个，请问现在一共有多少个苹果？"
BENCHMARKS = {"trains": [LONG, "What is 12-3?"], "apples": [CHINESE], "copy": [LONG]}


def test_a_run_of_ten_words_anywhere_is_a_leak() -> None:
    find = Decontaminator(BENCHMARKS).leak
    words = LONG.split()
    assert find(f"Yesterday, {LONG.upper()}!!") == "trains"
    assert find("Say: " + " ".join(words[7:17])) == "trains"  # exactly ten
    assert find("Say: " + " ".join(words[8:17]) + " again and again and again") is None  # nine
    assert find(" ".join(words[:9]) + " slowly " + " ".join(words[9:])) is None  # one word between
    assert find("请问小明有十二个苹果，他又买了" + "几个") == "apples"  # ten characters and more
    assert (
        find("小明有十二个苹果他又" + "吃了") == "apples" and find("小明有十二个苹果他" + "吃了很多很多") is None
    )  # 10 and 9


def test_short_questions_are_found_as_a_whole_only() -> None:
    find = Decontaminator(BENCHMARKS).leak
    assert find("what  is １２-3") == "trains" and find("What is 12 - 3.") == "trains"
    assert find("What is 12+3?") is None, "signs are no words, and count here"
    assert find("What is 12-3? Then add 4.") is None
    assert find("") is None


def test_an_opening_that_all_questions_share_wants_a_longer_run() -> None:
    """ "Write a function f of x: add 2, then multiply" is ten words, and says nothing of the 6 and the 5 that follow."""
    tested, asked = ("Write a function f of x: add 2, then multiply by 6, then add " + last for last in ("5", "7"))
    other = "Write a function f of x: add 2, then multiply by 9, then add 5"
    assert [Decontaminator({"own": [tested]}, n).leak(other) for n in (10, 13)] == ["own", None]
    assert Decontaminator({"own": [tested]}, 13).leak(asked) == "own", "all but the last number is the same"


def test_the_first_benchmark_is_named_and_all_are_counted() -> None:
    made = Decontaminator(BENCHMARKS)
    assert made.n_questions == {"trains": 2, "apples": 1, "copy": 1}
    assert Decontaminator({"copy": [LONG], **BENCHMARKS}).leak(LONG) == "copy"
    assert Decontaminator({}).leak(LONG) is None
    assert Decontaminator({"short": ["a b c d"]}, n=3).leak("x b c d y") == "short"
    with pytest.raises(InvalidInput, match="n=0"):
        Decontaminator({}, n=0)


def test_planted_leaks_among_many_texts() -> None:
    """1 in 50 of 2,000 texts holds ten words of a question at a place that differs: exactly those are found."""
    questions = [" ".join(f"w{i}x{j}" for j in range(20)) for i in range(100)]
    find = Decontaminator({"made": questions}).leak
    planted = {number for number in range(2_000) if number % 50 == 0}
    for number in range(2_000):
        words = [f"t{number}y{j}" for j in range(30)]
        if number in planted:
            question = questions[number % 100].split()
            start = number % 11
            words[start:start] = question[start : start + 10]
        assert (find(" ".join(words)) is not None) == (number in planted), number


def test_held_out_questions_of_sources() -> None:
    task = ArithmeticTask()
    wanted = [problem.question for problem in task.held_out_problems(5)]
    assert held_out_questions(task, 5) == wanted and held_out_questions(task, 0) == []
    assert held_out_questions(MixtureTask([MixturePart(task)]), 5) == wanted

    class Finite:
        n_held_out = 3

        def held_out_problems(self, count: int) -> list:
            return list(task.held_out_problems(count))

    assert held_out_questions(Finite(), 500) == wanted[:3], "all that a data set has, and no more"
