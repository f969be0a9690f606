"""The miniature's code: small functions, described step by step in English or Chinese, written in Python, judged by running them.

"Write a function f of x: add 3, then multiply by 2" is answered by `def f(x): return 2*x+6`. Every such function is a line
a*x+b, and its steps, `x+3` and `2*x+6`, are what a small model can do one at a time: as in `tasks/chains.py`, thinking has a
price and a value. Any Python that computes the function is right; `(x+3)*2` is as good.

**Held-out by construction.** A function of two or more steps is known by (a, b), whatever steps lead to it. A hash of that
says on which side of the wall it stands. A description is tested on only where its function is held out, and trained on only
where no function that it passes through is, so that a tested function is never worked out in training, not even on the way to
another. What is asked of three steps may begin with two that were trained on.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from r1_lightning.tasks.chains import is_held_out_key, keyed_random
from r1_lightning.tasks.solved import Solved
from r1_lightning.tasks.step_text import MANNERS, Manner, join_steps, thinking_language
from r1_lightning.text.chat_template import r1_zero_prompt
from r1_lightning.text.code_tests import TESTS, CodeCase, CodeTests
from r1_lightning.text.language import LANGUAGES
from r1_lightning.text.reasoning_format import ANSWER_CLOSE, ANSWER_OPEN, THINK_CLOSE, THINK_OPEN, reasoned
from r1_lightning.types.errors import InvalidInput, require_choice, require_int, require_number
from r1_lightning.types.text import Language, Problem

HELD_OUT_SEED = 20_261_121
DRAWS_PER_HELD_OUT_PROBLEM = 500  # far more than it takes to find one of some 450
MAX_SLOPE, MAX_OFFSET = 81, 199  # of any line on the way
MAX_TERM, MAX_FACTOR = 19, 9
TEST_INPUTS = (-7, 0, 1, 2, 10)  # two decide a line; the others decide what only looks like one

_OPENING = {"en": "Write a function f of x: ", "zh": "写一个x的函数f："}
_JOINT = {"en": ", then ", "zh": "，再"}
_WORDS = {
    "en": {"+": "add {}", "-": "take away {}", "*": "multiply by {}"},
    "zh": {"+": "加{}", "-": "减{}", "*": "乘{}"},
}
_SAY = {"en": "It is {}.", "zh": "函数是{}。"}
_WAIT = {"en": ". Wait, ", "zh": "。等等，"}
# Kinds of document and their shares, chosen as those of the arithmetic corpus are.
_KINDS = {"snippets": 0.30, "straight": 0.36, "reasoned": 0.17, "half_formatted": 0.10, "slip_noticed": 0.07}


class Line(NamedTuple):
    """The function slope*x + offset."""

    slope: int
    offset: int

    def after(self, step: Step) -> Line:
        """This function, and then one more step."""
        if step.sign == "*":
            return Line(self.slope * step.number, self.offset * step.number)
        return Line(self.slope, self.offset + (step.number if step.sign == "+" else -step.number))

    def __str__(self) -> str:
        """As Python: `x`, `2*x`, `x+3`, `2*x-6`."""
        return ("x" if self.slope == 1 else f"{self.slope}*x") + (f"{self.offset:+d}" if self.offset else "")

    @property
    def is_small(self) -> bool:
        return self.slope <= MAX_SLOPE and abs(self.offset) <= MAX_OFFSET


class Step(NamedTuple):
    """One operation: its sign, one of + - *, and its number."""

    sign: str
    number: int


IDENTITY = Line(1, 0)


def lines(steps: Sequence[Step]) -> list[Line]:
    """The function after each step."""
    passed, line = [], IDENTITY
    for step in steps:
        line = line.after(step)
        passed.append(line)
    return passed


def is_held_out(line: Line) -> bool:
    """On which side of the wall a function stands; one that a single step makes (`x+3`, `2*x`) is a fact, and shared."""
    return line.slope > 1 and line.offset != 0 and is_held_out_key(_name(line))


def may_train_on(steps: Sequence[Step]) -> bool:
    """True where no function of two or more steps on the way is held out."""
    return not any(is_held_out(line) for line in lines(steps)[1:])


def may_test_on(steps: Sequence[Step]) -> bool:
    """True where the function itself is held out."""
    return is_held_out(lines(steps)[-1])


def draw_steps(rng: random.Random, minimum: int, maximum: int, max_term: int = MAX_TERM) -> tuple[Step, ...]:
    """`minimum` .. `maximum` steps, sums (of at most `max_term`) and products in turn; every function on the way is small."""
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
    """The description, without its final mark."""
    words = (_WORDS[language][step.sign].format(step.number) for step in steps)
    return _OPENING[language] + _JOINT[language].join(words)


def program(line: Line) -> str:
    return f"def f(x): return {line}"


def tests_of(line: Line) -> CodeTests:
    """Calls of f, all hidden."""
    cases = (CodeCase(json.dumps([x]), json.dumps(line.slope * x + line.offset)) for x in TEST_INPUTS)
    return CodeTests("call", tuple(cases), entry_point="f")


@dataclass(frozen=True)
class ProgramsTask:
    """The problem source (see `types/text.py`) of functions of `min_steps` .. `max_steps` steps.

    Terms are at most `max_term`: with 9 no product is outside the times table. `wrong_share` is how many of the corpus's unreasoned
    answers are wrong; `manner` how it thinks aloud (`tasks/step_text.py`).
    """

    min_steps: int = 2
    max_steps: int = 3
    max_term: int = MAX_TERM
    wrong_share: float = 0.35
    manner: Manner = "mixed"
    content_version: ClassVar[str] = "programs-1"

    def __post_init__(self) -> None:
        require_int("task.min_steps", self.min_steps, 2)
        require_int("task.max_steps", self.max_steps, self.min_steps, 5)
        require_int("task.max_term", self.max_term, 1, MAX_TERM)
        require_number("task.wrong_share", self.wrong_share, 0.0, 1.0)
        require_choice("task.manner", self.manner, MANNERS)

    def train_problem(self, seed: int, index: int) -> Problem:
        """Problem number `index` of the endless training stream of `seed`."""
        return self.solved_problem(seed, index).problem

    def solved_problem(self, seed: int, index: int) -> Solved:
        """The same with the function after each step."""
        rng = keyed_random("programs", "train", seed, index)
        steps = self._training_steps(rng)
        return Solved(_problem(steps, rng.choice(LANGUAGES)), tuple(_steps_of(steps)))

    def held_out_problems(self, count: int) -> Sequence[Problem]:
        """The first `count` distinct held-out functions, the same for every seed, languages alternating."""
        require_int("held_out_problems", count, 1)
        rng = keyed_random("programs", "held-out", HELD_OUT_SEED)
        problems: dict[str, Problem] = {}
        for _ in range(DRAWS_PER_HELD_OUT_PROBLEM * count):
            steps = draw_steps(rng, self.min_steps, self.max_steps, self.max_term)
            problem = _problem(steps, LANGUAGES[len(problems) % len(LANGUAGES)])
            if may_test_on(steps) and problem.problem_id not in problems:
                problems[problem.problem_id] = problem
                if len(problems) == count:
                    return list(problems.values())
        raise InvalidInput(
            f"held_out_problems={count} is not allowed: these programs give only {len(problems)} of them"
        )

    def documents(self, seed: int, start: int, count: int) -> Iterator[str]:
        """Pre-training documents, numbered, each a function of (seed, number)."""
        for number in range(start, start + count):
            yield self._document(keyed_random("programs", "document", seed, number))

    def _training_steps(self, rng: random.Random) -> tuple[Step, ...]:
        while True:
            steps = draw_steps(rng, self.min_steps, self.max_steps, self.max_term)
            if may_train_on(steps):
                return steps

    def _document(self, rng: random.Random) -> str:
        kind, language = rng.choices(list(_KINDS), list(_KINDS.values()))[0], rng.choice(LANGUAGES)
        if kind == "snippets":
            return "\n".join(_snippet(rng, self.max_steps, self.max_term) for _ in range(6))
        steps = self._training_steps(rng)
        write = {"reasoned": _reasoned, "half_formatted": _half_formatted, "slip_noticed": _slip_noticed}.get(kind)
        answer = write(rng, steps, language, self.manner) if write else self._straight(rng, steps, language)
        return r1_zero_prompt(question_text(steps, language)) + answer

    def _straight(self, rng: random.Random, steps: Sequence[Step], language: str) -> str:
        line = lines(steps)[-1]
        code = program(_near_miss(rng, line) if rng.random() < self.wrong_share else line)
        forms = (
            f" {THINK_OPEN}{THINK_CLOSE}{ANSWER_OPEN}{code}{ANSWER_CLOSE}",
            f" {ANSWER_OPEN}{code}{ANSWER_CLOSE}",
            " " + _SAY[language].format(code),
        )
        return rng.choices(forms, (0.3, 0.2, 0.5))[0]


def _problem(steps: Sequence[Step], language: Language) -> Problem:
    line = lines(steps)[-1]
    metadata = {TESTS: tests_of(line).to_json()}
    return Problem(question_text(steps, language), program(line), _name(line), language, len(steps), metadata)


def _name(line: Line) -> str:
    return f"program:{line.slope},{line.offset}"


def _snippet(rng: random.Random, max_steps: int, max_term: int) -> str:
    """One step from one line to the next, in words and in Python: the facts that a program is made of."""
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
    return rng.choice(
        (
            f" {thinking} {_SAY[language].format(code)}",
            f" {THINK_OPEN}{thinking}{THINK_CLOSE} {_SAY[language].format(code)}",
            f" {thinking}{ANSWER_OPEN}{code}{ANSWER_CLOSE}",
        )
    )


def _slip_noticed(rng: random.Random, steps: Sequence[Step], language: str, manner: Manner) -> str:
    passed = lines(steps)
    texts = _steps_of(steps)
    at = rng.randrange(len(passed))
    texts[at] = f"{_near_miss(rng, passed[at])}{_WAIT[language]}{texts[at]}"
    return reasoned(join_steps(rng, texts, language, manner), program(passed[-1]))


def _near_miss(rng: random.Random, line: Line) -> Line:
    """A wrong line of the kind people write, and never one that is held out: a tested function is not even a mistake."""
    while True:
        wrong = Line(line.slope, line.offset + rng.choice((-10, -2, -1, 1, 2, 10)))
        if not is_held_out(wrong):
            return wrong
