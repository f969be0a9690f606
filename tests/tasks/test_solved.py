"""What is said about one solved problem."""

from __future__ import annotations

import pytest

from r1_lightning.tasks.arithmetic import ArithmeticTask
from r1_lightning.tasks.keyed import keyed_random
from r1_lightning.tasks.programs import ProgramsTask
from r1_lightning.tasks.solved import ANSWER_SHARES, Solved, question_document
from r1_lightning.text.answers import lenient_answer
from r1_lightning.text.chat_template import r1_zero_prompt
from r1_lightning.text.language import is_mixed
from r1_lightning.text.reasoning_format import parse
from r1_lightning.types.text import Problem
from tests.support.shares import near

SUM = Solved(Problem("What is 1+2+3", "6", "1,2,3"), ("1+2=3", "3+3=6"), ("5", "7"), ((0, "1+2=4"),))


def documents(solved: Solved, manner: str, count: int = 3_000, wrong_share: float = 0.5) -> list[str]:
    """The answers of `count` documents, without the prompt."""
    prompt = r1_zero_prompt(solved.problem.question)
    texts = [question_document(keyed_random("test", n), solved, manner, wrong_share) for n in range(count)]  # type: ignore[arg-type]
    assert all(text.startswith(prompt + " ") for text in texts)
    return [text.removeprefix(prompt) for text in texts]


def test_the_kinds_of_answer_have_their_shares() -> None:
    answers = documents(SUM, "clean")
    reasoned = [text for text in answers if parse(text).well_formed]
    noticed = [text for text in reasoned if "1+2=4. Wait, 1+2=3" in text]
    assert len(reasoned) / 3_000 == near(ANSWER_SHARES["reasoned"] + ANSWER_SHARES["slip_noticed"], 3_000)
    assert len(noticed) / 3_000 == near(ANSWER_SHARES["slip_noticed"], 3_000)
    wrong = [text for text in answers if lenient_answer(text) != "6"]
    assert len(wrong) / 3_000 == near(ANSWER_SHARES["straight"] * 0.5, 3_000)  # only straight answers are wrong
    assert {lenient_answer(text) for text in wrong} == {"5", "7"}
    assert sum(ANSWER_SHARES.values()) == pytest.approx(1.0, abs=1e-12)


def test_the_manner_decides_whether_languages_mix() -> None:
    assert not any(is_mixed(text) for text in documents(SUM, "clean", 500))
    mixed = [text for text in documents(SUM, "mixed", 500) if parse(text).well_formed]
    assert sum(is_mixed(text) for text in mixed) / len(mixed) > 0.1


def test_prose_is_written_as_it_is() -> None:
    prose = Solved(Problem("Say hello", "Hello!", "greet"), ("I say hello.",), is_prose=True)
    reasoned = [text for text in documents(prose, "mixed", 200) if parse(text).well_formed]
    assert {parse(text).think for text in reasoned} == {"I say hello."}


@pytest.mark.parametrize("task", [ArithmeticTask(), ProgramsTask()])
def test_older_tasks_say_how_they_are_solved(task) -> None:
    for index in range(50):
        solved = task.solved_problem(4, index)
        assert solved.problem == task.train_problem(4, index)
        last = solved.steps[-1].rsplit("=", 1)[-1]
        assert solved.problem.answer.removeprefix("def f(x): return ") == last
