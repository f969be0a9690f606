"""Equations, solved by SymPy and parsed independently: answers are right, and held-out equations never occur in training."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise

import pytest
import sympy

from r1_lightning.tasks import equations
from r1_lightning.tasks.equations import Equation, EquationsTask, Side, draw_equation, may_test_on, may_train_on
from r1_lightning.tasks.keyed import keyed_random
from r1_lightning.tasks.solved import ANSWER_SHARES
from r1_lightning.text.reasoning_format import parse
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.text import Problem
from tests.support.shares import near

TASK = EquationsTask()
X = sympy.Symbol("x")
TOLD = (
    re.compile(r"A number times (\d+), (plus|minus) (\d+), is (\d+)"),
    re.compile(r"一个数乘(\d+)，再(加|减)(\d+)，等于(\d+)"),
)
RUN = re.compile(r"[0-9x*/+()=-]+")

# Two sides, each (slope, offset), the smaller first.
Form = tuple[tuple[Fraction, Fraction], tuple[Fraction, Fraction]]


# ------------------------------------------------------------------------------- a reader that knows nothing of the writer


def sides(text: str) -> Iterator[tuple[str, str]]:
    """Every written equation in x, as its two sides; also those told in words."""
    for run in RUN.findall(text):
        for left, right in pairwise(run.split("=")):
            if left and right and "x" in left + right:
                yield left, right
    for pattern in TOLD:
        for factor, sign, term, value in pattern.findall(text):
            yield f"{factor}*x{'+' if sign in ('plus', '加') else '-'}{term}", value


def value(node: ast.expr, x: int) -> Fraction:
    if isinstance(node, ast.BinOp):
        a, b = value(node.left, x), value(node.right, x)
        return {ast.Add: a + b, ast.Sub: a - b, ast.Mult: a * b, ast.Div: a / b if b else Fraction(0)}[type(node.op)]
    if isinstance(node, ast.UnaryOp):
        return -value(node.operand, x)
    return Fraction(x) if isinstance(node, ast.Name) else Fraction(node.value)  # type: ignore[attr-defined]


@lru_cache(maxsize=100_000)
def linear(side: str) -> tuple[Fraction, Fraction]:
    """(slope, offset), from the values at 0 and at 1."""
    tree = ast.parse(side, mode="eval").body
    at_0, at_1 = value(tree, 0), value(tree, 1)
    return at_1 - at_0, at_0


def forms(texts: Iterable[str]) -> set[Form]:
    """The equations that take more than one step, in texts: as written, multiplied out, and with x collected on one side."""
    found = set()
    for text in texts:
        for left, right in sides(text):
            (a, b), (c, d) = sorted((linear(left), linear(right)))
            for form in (((a, b), (c, d)), ((Fraction(0), b), (c - a, d))):
                (slope, _), (other_slope, other_offset) = form
                one_step = slope == 0 and (other_offset == 0 or other_slope == 1)
                if not one_step:
                    found.add(form)
    return found


def training_problems(count: int) -> list[Problem]:
    return [TASK.train_problem(seed, index) for seed in (0, 1) for index in range(count // 2)]


# ---------------------------------------------------------------------------------------------------------------- the tests


def test_by_hand() -> None:
    # 7*(x+2)=4*x+35: 7x+14=4x+35, 3x+14=35, 3x=35-14=21, x=21/3=7
    equation = Equation(Side(7, 14), Side(4, 35), inner=2)
    assert str(equation) == "7*(x+2)=4*x+35" and equation.solution == 7 and equation.level == 3
    lines = ["7*x+14=4*x+35", "3*x+14=35", "3*x=35-14=21", "x=21/3=7"]
    assert [line + number for line, number in equation.steps()] == lines
    plain = Equation(Side(3, -4), Side(0, 26))  # 3x=26+4=30, x=30/3=10
    assert [line + number for line, number in plain.steps()] == ["3*x=26+4=30", "x=30/3=10"]
    assert plain.level == 1 and str(Equation(Side(1, 5), Side(0, 12))) == "x+5=12"
    assert Equation(Side(3, 6), Side(0, 27)).key() == Equation(Side(3, 6), Side(0, 27), inner=2).key()


def test_questions_and_answers_agree_with_sympy() -> None:
    for problem in [*training_problems(200), *TASK.held_out_problems(100)]:
        ((left, right),) = sides(problem.question)
        solutions = sympy.solve(sympy.sympify(left) - sympy.sympify(right), X)
        assert solutions == [int(problem.answer)] and 1 <= int(problem.answer) <= 20, problem


def test_every_line_of_a_solution_holds() -> None:
    for index in range(300):
        solved = TASK.solved_problem(0, index)
        x = int(solved.problem.answer)
        for step in solved.steps:
            values = {value(ast.parse(part, mode="eval").body, x) for part in step.split("=")}
            assert len(values) == 1, (step, x)
        assert solved.steps[-1].endswith(f"={x}")
        assert solved.problem.answer not in solved.wrong_answers
        for number, slip in solved.slips:
            assert slip != solved.steps[number] and slip.rsplit("=", 1)[0] == solved.steps[number].rsplit("=", 1)[0]


def test_levels_are_what_they_say() -> None:
    for problem in training_problems(300):
        ((left, right),) = sides(problem.question)
        assert problem.level == 1 + ("(" in left) + ("x" in right), problem
    only = EquationsTask(min_level=2, max_level=2)
    assert {only.train_problem(0, index).level for index in range(50)} == {2}
    assert {problem.level for problem in TASK.held_out_problems(300)} == {1, 2, 3}


def test_solutions_are_at_most_max_x() -> None:
    small = EquationsTask(max_x=3)
    problems = [*(small.train_problem(0, index) for index in range(200)), *small.held_out_problems(20)]
    assert {int(problem.answer) for problem in problems} == {1, 2, 3}
    facts = [text for text in small.documents(0, 0, 200) if "Assistant:" not in text]
    assert {int(line.rsplit("=", 1)[1]) for text in facts for line in text.split("\n")} == {1, 2, 3}


def test_nothing_that_is_tested_was_ever_written_in_training() -> None:
    held_out = TASK.held_out_problems(400)
    assert len({problem.problem_id for problem in held_out}) == 400
    tested = forms(problem.question for problem in held_out)
    assert len(tested) > 400  # and what is left of them after a step
    trained = forms(text for seed in (0, 1) for text in TASK.documents(seed, 0, 5_000))
    trained |= forms(problem.question for problem in training_problems(2_000))
    assert len(trained) > 2_000  # the reader does find what is there
    assert trained & tested == set()


def test_a_missing_split_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    tested = forms(problem.question for problem in TASK.held_out_problems(400))
    monkeypatch.setattr(equations, "may_train_on", lambda equation: True)
    assert forms(TASK.documents(0, 0, 2_000)) & tested


def test_train_and_test_sides_do_not_meet_and_facts_are_shared() -> None:
    rng = keyed_random("test")
    drawn = [draw_equation(rng, 1, 3) for _ in range(2_000)]
    assert not any(may_train_on(equation) and may_test_on(equation) for equation in drawn)
    assert all(may_train_on(Equation(Side(3, 0), Side(0, 3 * x))) for x in range(34))
    assert all(may_train_on(Equation(Side(1, 5), Side(0, 5 + x))) for x in range(34))


def test_the_shares_of_the_corpus() -> None:
    texts = list(TASK.documents(0, 0, 3_000))
    answers = [text.partition("Assistant:")[2] for text in texts if "Assistant:" in text]
    assert 1 - len(answers) / len(texts) == near(equations.FACTS_SHARE, 3_000)
    well_formed = sum(parse(answer).well_formed for answer in answers) / len(answers)
    assert well_formed == near(ANSWER_SHARES["reasoned"] + ANSWER_SHARES["slip_noticed"], len(answers))
    facts = [line for text in texts if "Assistant:" not in text for line in text.split("\n")]
    for line in facts[:500]:
        left, right = line.split(", x=")
        assert sympy.sympify(left.replace("=", "-(") + ")").subs(X, int(right.rsplit("=", 1)[1])) == 0


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"min_level": 0}, "task.min_level=0"),
        ({"max_level": 4}, "task.max_level=4"),
        ({"min_level": 3, "max_level": 2}, "task.max_level=2"),
        ({"max_x": 0}, "task.max_x=0"),
        ({"max_x": 21}, "task.max_x=21"),
        ({"word_share": -0.1}, "task.word_share=-0.1"),
        ({"wrong_share": 2.0}, "task.wrong_share=2"),
        ({"manner": "loud"}, "task.manner='loud'"),
    ],
)
def test_bad_settings_are_named(settings: dict, field: str) -> None:
    with pytest.raises(InvalidInput, match=field):
        EquationsTask(**settings)
