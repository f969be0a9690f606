"""The miniature's programming task: small functions, described step by step in English or Chinese, judged by running them.

"Write a function f of x: add 3, then multiply by 2" is answered by `def f(x): return 2*x+6`. Every such function is linear,
a*x+b, and a small model can do its steps, `x+3` and `2*x+6`, one at a time: as in `tasks/chains.py`, reasoning has a price and a
value. Any Python program that computes the function is right, `(x+3)*2` too.

**Held-out by construction.** The key of a function of two or more steps is (a, b), whatever its steps. A hash of the key decides
the side of the train/test split. A description may be tested on only if its function is held out, and trained on only if none of
its intermediate functions is, so that no training text computes a tested function, not even on the way to another. A test item
of three steps may start with two steps that were trained on.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from r1_lightning.tasks.generated import GeneratedTask
from r1_lightning.tasks.keyed import is_held_out_key
from r1_lightning.tasks.solved import Solved, half_formatted_answer, straight_answer
from r1_lightning.tasks.step_text import MANNERS, WAIT, Manner, join_steps, thinking_language
from r1_lightning.text.chat_template import r1_zero_prompt
from r1_lightning.text.code_tests import TESTS, CodeCase, CodeTests
from r1_lightning.text.language import LANGUAGES
from r1_lightning.text.reasoning_format import reasoned
from r1_lightning.types.errors import require_choice, require_int, require_number
from r1_lightning.types.text import Language, Problem

MAX_SLOPE, MAX_OFFSET = 81, 199  # of every intermediate function
MAX_TERM, MAX_FACTOR = 19, 9
TEST_INPUTS = (-7, 0, 1, 2, 10)  # two points determine a line; the others expose functions that are not linear

_OPENING = {"en": "Write a function f of x: ", "zh": "写一个x的函数f："}
_JOINT = {"en": ", then ", "zh": "，再"}
_WORDS = {
    "en": {"+": "add {}", "-": "take away {}", "*": "multiply by {}"},
    "zh": {"+": "加{}", "-": "减{}", "*": "乘{}"},
}
_SAY = {"en": "It is {}.", "zh": "函数是{}。"}
# Document types and their shares, chosen like those of the arithmetic corpus.
_KINDS = {"snippets": 0.30, "straight": 0.36, "reasoned": 0.17, "half_formatted": 0.10, "slip_noticed": 0.07}


class Line(NamedTuple):
    """The function slope*x + offset."""

    slope: int
    offset: int

    def after(self, step: Step) -> Line:
        """Return this function followed by one more step."""
        if step.sign == "*":
            return Line(self.slope * step.number, self.offset * step.number)
        return Line(self.slope, self.offset + (step.number if step.sign == "+" else -step.number))

    def __str__(self) -> str:
        """Return the Python expression: `x`, `2*x`, `x+3`, `2*x-6`."""
        return ("x" if self.slope == 1 else f"{self.slope}*x") + (f"{self.offset:+d}" if self.offset else "")

    @property
    def is_small(self) -> bool:
        return self.slope <= MAX_SLOPE and abs(self.offset) <= MAX_OFFSET


class Step(NamedTuple):
    """One operation: its sign (+, - or *) and its number."""

    sign: str
    number: int


IDENTITY = Line(1, 0)


def lines(steps: Sequence[Step]) -> list[Line]:
    """Return the function after each step."""
    passed, line = [], IDENTITY
    for step in steps:
        line = line.after(step)
        passed.append(line)
    return passed


def is_held_out(line: Line) -> bool:
    """True if the function belongs to the test split; functions of a single step (`x+3`, `2*x`) are facts, shared by both sides."""
    return line.slope > 1 and line.offset != 0 and is_held_out_key(_name(line))


def may_train_on(steps: Sequence[Step]) -> bool:
    """True if no intermediate function of two or more steps is held out."""
    return not any(is_held_out(line) for line in lines(steps)[1:])


def may_test_on(steps: Sequence[Step]) -> bool:
    """True if the function itself is held out."""
    return is_held_out(lines(steps)[-1])


def draw_steps(rng: random.Random, minimum: int, maximum: int, max_term: int = MAX_TERM) -> tuple[Step, ...]:
    """Draw `minimum` .. `maximum` steps, alternately sums (terms up to `max_term`) and products, within MAX_SLOPE, MAX_OFFSET."""
    while True:
        count, first = rng.randint(minimum, maximum), rng.randrange(2)
        steps = tuple(_draw_step(rng, (first + place) % 2 == 0, max_term) for place in range(count))
        if all(line.is_small for line in lines(steps)):
            return steps


def _draw_step(rng: random.Random, is_product: bool, max_term: int) -> Step:
    if is_product:
        return Step("*", rng.randint(2, MAX_FACTOR))
    return Step(rng.choice("+-"), rng.randint(1, max_term))


def question_text(steps: Sequence[Step], language: str) -> str:
    """Return the description without its final mark."""
    words = (_WORDS[language][step.sign].format(step.number) for step in steps)
    return _OPENING[language] + _JOINT[language].join(words)


def program(line: Line) -> str:
    return f"def f(x): return {line}"


def tests_of(line: Line) -> CodeTests:
    """Return the test calls of f, all hidden."""
    cases = (CodeCase(json.dumps([x]), json.dumps(line.slope * x + line.offset)) for x in TEST_INPUTS)
    return CodeTests("call", tuple(cases), entry_point="f")


@dataclass(frozen=True)
class ProgramsTask(GeneratedTask[tuple[Step, ...]]):
    """The problem source (see `types/text.py`) of functions of `min_steps` .. `max_steps` steps.

    Terms are at most `max_term`: with 9 all products are in the times table. `wrong_share` is the share of wrong answers among the
    corpus's answers without reasoning; `manner` the style of its reasoning (`tasks/step_text.py`).
    """

    min_steps: int = 2
    max_steps: int = 3
    max_term: int = MAX_TERM
    wrong_share: float = 0.35
    manner: Manner = "mixed"
    content_version: ClassVar[str] = "programs-1"
    stream: ClassVar[str] = "programs"
    item_plural: ClassVar[str] = "programs"
    held_out_seed: ClassVar[int] = 20_261_121

    def __post_init__(self) -> None:
        require_int("task.min_steps", self.min_steps, 2)
        require_int("task.max_steps", self.max_steps, self.min_steps, 5)
        require_int("task.max_term", self.max_term, 1, MAX_TERM)
        require_number("task.wrong_share", self.wrong_share, 0.0, 1.0)
        require_choice("task.manner", self.manner, MANNERS)

    def draw(self, rng: random.Random) -> tuple[Step, ...]:
        return draw_steps(rng, self.min_steps, self.max_steps, self.max_term)

    def may_train_on(self, steps: Sequence[Step]) -> bool:
        return may_train_on(steps)

    def may_test_on(self, steps: Sequence[Step]) -> bool:
        return may_test_on(steps)

    def solve(self, rng: random.Random, steps: Sequence[Step], language: Language) -> Solved:
        """Return the problem; the solution's steps are the function after each step."""
        line = lines(steps)[-1]
        metadata = {TESTS: tests_of(line).to_json()}
        problem = Problem(question_text(steps, language), program(line), _name(line), language, len(steps), metadata)
        return Solved(problem, tuple(_steps_of(steps)))

    def document(self, rng: random.Random) -> str:
        kind, language = rng.choices(list(_KINDS), list(_KINDS.values()))[0], rng.choice(LANGUAGES)
        if kind == "snippets":
            return "\n".join(_snippet(rng, self.max_steps, self.max_term) for _ in range(6))
        steps = self.draw_training(rng)
        write = {"reasoned": _reasoned, "half_formatted": _half_formatted, "slip_noticed": _slip_noticed}.get(kind)
        answer = write(rng, steps, language, self.manner) if write else self._straight(rng, steps, language)
        return r1_zero_prompt(question_text(steps, language)) + answer

    def _straight(self, rng: random.Random, steps: Sequence[Step], language: str) -> str:
        line = lines(steps)[-1]
        code = program(_near_miss(rng, line) if rng.random() < self.wrong_share else line)
        return straight_answer(rng, code, _SAY[language].format(code))


def _name(line: Line) -> str:
    return f"program:{line.slope},{line.offset}"


def _snippet(rng: random.Random, max_steps: int, max_term: int) -> str:
    """Return one step from one function to the next, in words and in Python: the facts of which a program consists."""
    language = rng.choice(LANGUAGES)
    while True:
        before = draw_steps(rng, 1, max_steps - 1, max_term)
        step = _draw_step(rng, is_product=before[-1].sign != "*", max_term=max_term)
        passed = lines((*before, step))
        if passed[-1].is_small and may_train_on((*before, step)):
            return f"{passed[-2]}{_JOINT[language]}{_WORDS[language][step.sign].format(step.number)}: {program(passed[-1])}"


def _steps_of(steps: Sequence[Step]) -> list[str]:
    return [str(line) for line in lines(steps)]


def _reasoned(rng: random.Random, steps: Sequence[Step], language: str, manner: Manner) -> str:
    thinking = join_steps(rng, _steps_of(steps), thinking_language(rng, language, manner), manner)
    return reasoned(thinking, program(lines(steps)[-1]))


def _half_formatted(rng: random.Random, steps: Sequence[Step], language: str, manner: Manner) -> str:
    thinking, code = join_steps(rng, _steps_of(steps), language, manner), program(lines(steps)[-1])
    return half_formatted_answer(rng, thinking, code, _SAY[language].format(code))


def _slip_noticed(rng: random.Random, steps: Sequence[Step], language: str, manner: Manner) -> str:
    passed = lines(steps)
    texts = _steps_of(steps)
    at = rng.randrange(len(passed))
    texts[at] = f"{_near_miss(rng, passed[at])}{WAIT[language]}{texts[at]}"
    return reasoned(join_steps(rng, texts, language, manner), program(passed[-1]))


def _near_miss(rng: random.Random, line: Line) -> Line:
    """Return a typical wrong function; never a held-out one, so that a tested function does not even occur as a mistake."""
    while True:
        wrong = Line(line.slope, line.offset + rng.choice((-10, -2, -1, 1, 2, 10)))
        if not is_held_out(wrong):
            return wrong
