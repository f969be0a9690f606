"""The miniature's programs, checked by SymPy and an independent parser: right answers, no held-out function in training."""

from __future__ import annotations

import re

import pytest
import sympy

from r1_lightning.tasks import programs
from r1_lightning.tasks.keyed import keyed_random
from r1_lightning.tasks.programs import Line, ProgramsTask, Step, draw_steps, lines, may_test_on, may_train_on, program
from r1_lightning.text.code_tests import TESTS, CodeTests
from r1_lightning.text.reasoning_format import parse
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.text import Problem
from tests.support.shares import near

TASK = ProgramsTask()
X = sympy.Symbol("x")
WORDS = {"add": "+", "take away": "-", "multiply by": "*", "加": "+", "减": "-", "乘": "*"}
OPERATION = re.compile(rf"({'|'.join(WORDS)}) ?(\d+)")
LINE = re.compile(r"(?:(\d+)\*)?x([+-]\d+)?(?![\d*])")


def asked(question: str) -> sympy.Expr:
    """The function that a question describes, worked out by SymPy."""
    value = X
    for word, number in OPERATION.findall(question):
        value = {"+": value + int(number), "-": value - int(number), "*": value * int(number)}[WORDS[word]]
    return sympy.expand(value)


def written_lines(text: str) -> set[tuple[int, int]]:
    """(slope, offset) of every line that stands in a text."""
    return {(int(a or 1), int(b or 0)) for a, b in LINE.findall(text.replace("f(x)", "f"))}


def training_problems(count: int) -> list[Problem]:
    return [TASK.train_problem(seed, index) for seed in (0, 1) for index in range(count // 2)]


def test_by_hand() -> None:
    steps = (Step("+", 3), Step("*", 2), Step("-", 4))  # x+3, then 2*(x+3) = 2*x+6, then 2*x+2
    assert list(map(str, lines(steps))) == ["x+3", "2*x+6", "2*x+2"]
    assert program(Line(2, 2)) == "def f(x): return 2*x+2"
    assert [str(line) for line in (Line(1, 0), Line(3, 0), Line(1, -2), Line(5, -6))] == ["x", "3*x", "x-2", "5*x-6"]


def test_questions_and_answers_agree_with_sympy() -> None:
    for problem in [*training_problems(300), *TASK.held_out_problems(100)]:
        expression = problem.answer.removeprefix("def f(x): return ")
        assert sympy.expand(sympy.sympify(expression)) == asked(problem.question), problem
        assert len(OPERATION.findall(problem.question)) == problem.level


def test_the_tests_call_the_function_and_hide_every_case() -> None:
    problem = TASK.train_problem(0, 3)
    tests = CodeTests.from_json(problem.metadata[TESTS])
    assert (tests.kind, tests.entry_point) == ("call", "f") and not any(case.is_visible for case in tests.cases)
    for case in tests.cases:
        assert int(case.expected) == asked(problem.question).subs(X, int(case.given.strip("[]")))
    assert len({case.given for case in tests.cases}) >= 2  # one call would be passed by a constant


def test_terms_are_at_most_max_term() -> None:
    small = ProgramsTask(max_term=4)
    problems = [*(small.train_problem(0, index) for index in range(200)), *small.held_out_problems(20)]
    terms = re.compile(r"(?:add|take away|加|减) ?(\d+)")
    assert {int(term) for problem in problems for term in terms.findall(problem.question)} == {1, 2, 3, 4}
    assert {int(term) for text in small.documents(0, 0, 300) for term in terms.findall(text)} == {1, 2, 3, 4}


def test_nothing_that_is_tested_was_ever_written_in_training() -> None:
    tested = {next(iter(written_lines(problem.answer))) for problem in TASK.held_out_problems(300)}
    assert len(tested) == 300
    texts = [text for seed in (0, 1) for text in TASK.documents(seed, 0, 5_000)]
    texts += [problem.answer for problem in training_problems(2_000)]
    trained = set().union(*map(written_lines, texts))
    assert len(trained) > 1_500  # the reader does find what is there
    assert trained & tested == set()


def test_a_missing_split_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    tested = {next(iter(written_lines(problem.answer))) for problem in TASK.held_out_problems(300)}
    monkeypatch.setattr(programs, "may_train_on", lambda steps: True)
    assert set().union(*map(written_lines, TASK.documents(0, 0, 2_000))) & tested


def test_train_and_test_sides_do_not_meet_and_facts_are_shared() -> None:
    rng = keyed_random("test")
    drawn = [draw_steps(rng, 2, 3) for _ in range(2_000)]
    assert not any(may_train_on(steps) and may_test_on(steps) for steps in drawn)
    assert not any(programs.is_held_out(Line(1, offset)) for offset in range(-199, 200))
    assert not any(programs.is_held_out(Line(slope, 0)) for slope in range(2, 82))


def test_the_corpus_knows_every_form_and_well_formed_reasoning_is_a_minority() -> None:
    texts = list(TASK.documents(0, 0, 3_000))
    answers = [text.partition("Assistant:")[2] for text in texts if "Assistant:" in text]
    well_formed = sum(parse(answer).well_formed for answer in answers) / len(texts)
    # By the shares of the kinds: reasoned 0.17 and slips that are noticed 0.07.
    assert well_formed == near(0.24, 3_000)
    assert 1 - len(answers) / len(texts) == near(0.30, 3_000)  # snippets
    assert {fault for answer in answers for fault in parse(answer).faults} >= {
        "empty_think",
        "missing_answer",
        "missing_think",
    }


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"min_steps": 1}, "task.min_steps=1"),
        ({"max_steps": 6}, "task.max_steps=6"),
        ({"max_term": 0}, "task.max_term=0"),
        ({"max_term": 20}, "task.max_term=20"),
        ({"wrong_share": 2.0}, "task.wrong_share=2"),
    ],
)
def test_bad_settings_are_named(settings: dict, field: str) -> None:
    with pytest.raises(InvalidInput, match=field):
        ProgramsTask(**settings)
