"""The miniature's algebra: linear equations in x with a whole solution, solved line by line, in English and Chinese.

    3*x+5=26          level 1                     3*x=26-5=21, x=21/3=7
    3*(x+2)=27        level 2: brackets           3*x+6=27, then as level 1
    7*x+5=4*x+26      level 2: x on both sides    3*x+5=26, then as level 1
    7*(x+2)=4*x+35    level 3: both

One line is a fact that a small model can learn (a sum, a quotient of the times table); a whole solution takes several.

**Held-out by construction.** An equation is known by its two sides, multiplied out, in either order: `3*(x+2)=27` and `27=3*x+6`
are one. A *state* is what is left to solve at any moment. An equation that one step solves (`3*x=21`, `x+5=12`) is a fact, and
shared. Of all others a hash decides the side of the wall; an equation is tested on only where all its states are held out, and
trained on only where none is.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from r1_lightning.tasks.chains import is_held_out_key, keyed_random
from r1_lightning.tasks.solved import Solved, distinct_held_out, question_document
from r1_lightning.tasks.step_text import MANNERS, Manner
from r1_lightning.text.language import LANGUAGES
from r1_lightning.types.errors import require_choice, require_int, require_number
from r1_lightning.types.text import Language, Problem

HELD_OUT_SEED = 20_261_122
DRAWS_PER_HELD_OUT_PROBLEM = 1_000
MAX_LEVEL = 3
MAX_SLOPE, MAX_X, MAX_VALUE = 9, 20, 99  # of any line on the way; MAX_VALUE bounds the numbers that stand alone
MAX_OFFSET, MAX_INNER = 19, 9  # of a plain side, and within brackets
FACTS_SHARE = 0.30  # of documents
FACTS_PER_DOCUMENT = 4  # some 100 tokens

_QUESTIONS = {
    "en": ("Solve {}", "Find x: {}", "What is x if {}"),
    "zh": ("解方程{}", "求x：{}", "若{}，x是多少"),
}
_TOLD = {
    "en": ("A number times {}, {} {}, is {}. What is the number", {"+": "plus", "-": "minus"}),
    "zh": ("一个数乘{}，再{}{}，等于{}，这个数是多少", {"+": "加", "-": "减"}),
}


class Side(NamedTuple):
    """slope*x + offset, one side of an equation."""

    slope: int
    offset: int

    def __str__(self) -> str:
        """As it is written: `3*x+5`, `x-4`, `3*x`, `26`."""
        if not self.slope:
            return str(self.offset)
        return ("x" if self.slope == 1 else f"{self.slope}*x") + (f"{self.offset:+d}" if self.offset else "")


@dataclass(frozen=True, slots=True)
class Equation:
    """`left` = `right`, the left side with the larger slope. With `inner` it is written as slope*(x+inner)."""

    left: Side
    right: Side
    inner: int | None = None

    def __str__(self) -> str:
        left = str(self.left) if self.inner is None else f"{self.left.slope}*(x{self.inner:+d})"
        return f"{left}={self.right}"

    @property
    def level(self) -> int:
        return 1 + (self.inner is not None) + (self.right.slope > 0)

    @property
    def solution(self) -> int:
        return (self.right.offset - self.left.offset) // (self.left.slope - self.right.slope)

    @property
    def is_fact(self) -> bool:
        """One step solves it: `3*x=21`, `x+5=12`."""
        return self.right.slope == 0 and (self.left.offset == 0 or self.left.slope == 1)

    def key(self) -> str:
        return "equation:" + "|".join(sorted((str(self.left), str(self.right))))

    def collected(self) -> Equation:
        """The same with x on the left only."""
        return Equation(Side(self.left.slope - self.right.slope, self.left.offset), Side(0, self.right.offset))

    def states(self) -> list[Equation]:
        """This equation and what is left of it, as far as more than one step is left."""
        states = [self, self.collected()] if self.right.slope else [self]
        return [state for state in states if not state.is_fact]

    def steps(self) -> list[tuple[str, str]]:
        """The lines of the solution, each in two parts: up to its last number, and that number (empty where there is no slip)."""
        lines = [(f"{self.left}={self.right}", "")] if self.inner is not None else []
        plain = self.collected()
        if self.right.slope:
            lines.append((str(plain), ""))
        slope, offset = plain.left
        product = plain.right.offset - offset
        if offset:
            lines.append((f"{Side(slope, 0)}={plain.right.offset}{-offset:+d}=", str(product)))
        if slope > 1:
            lines.append((f"x={product}/{slope}=", str(product // slope)))
        return lines


def may_train_on(equation: Equation) -> bool:
    """True where no state is held out."""
    return not any(is_held_out_key(state.key()) for state in equation.states())


def may_test_on(equation: Equation) -> bool:
    """True where every state is held out."""
    return all(is_held_out_key(state.key()) for state in equation.states())


def draw_equation(rng: random.Random, min_level: int, max_level: int, max_x: int = MAX_X) -> Equation:
    """An equation of level `min_level` .. `max_level`, solved by 1 .. `max_x`.

    Every number that stands alone on the way lies in 0 .. MAX_VALUE.
    """
    level = rng.randint(min_level, max_level)
    while True:
        has_brackets = level == 3 or (level == 2 and rng.random() < 0.5)
        slope, x = rng.randint(2, 6), rng.randint(1, max_x)
        moved = rng.randint(1, 4) if level == 3 or (level == 2 and not has_brackets) else 0
        inner = rng.choice((-1, 1)) * rng.randint(1, MAX_INNER) if has_brackets else None
        offset = rng.choice((-1, 1)) * rng.randint(1, MAX_OFFSET) if inner is None else inner * (slope + moved)
        right = slope * x + offset
        if slope + moved <= MAX_SLOPE and 0 <= right <= MAX_VALUE and slope * x <= MAX_VALUE:
            return Equation(Side(slope + moved, offset), Side(moved, right), inner)


def question_text(rng: random.Random, equation: Equation, language: str, in_words: bool) -> str:
    """The question without its final mark; equations of level 1 may be told in words."""
    if in_words and equation.level == 1:
        told, signs = _TOLD[language]
        sign = signs["+" if equation.left.offset > 0 else "-"]
        return told.format(equation.left.slope, sign, abs(equation.left.offset), equation.right.offset)
    return rng.choice(_QUESTIONS[language]).format(equation)


@dataclass(frozen=True)
class EquationsTask:
    """The problem source (see `types/text.py`) of equations of level `min_level` .. `max_level`, solved by 1 .. `max_x`.

    With `max_x` 9 no fact is outside the times table. `word_share` is how many equations of level 1 are told in words,
    `wrong_share` how many of the corpus's unreasoned answers are wrong; `manner` how it thinks aloud (`tasks/step_text.py`).
    """

    min_level: int = 1
    max_level: int = 3
    max_x: int = MAX_X
    word_share: float = 0.3
    wrong_share: float = 0.35
    manner: Manner = "mixed"
    content_version: ClassVar[str] = "equations-1"

    def __post_init__(self) -> None:
        require_int("task.min_level", self.min_level, 1, MAX_LEVEL)
        require_int("task.max_level", self.max_level, self.min_level, MAX_LEVEL)
        require_int("task.max_x", self.max_x, 1, MAX_X)
        require_number("task.word_share", self.word_share, 0.0, 1.0)
        require_number("task.wrong_share", self.wrong_share, 0.0, 1.0)
        require_choice("task.manner", self.manner, MANNERS)

    def train_problem(self, seed: int, index: int) -> Problem:
        """Problem number `index` of the endless training stream of `seed`."""
        return self.solved_problem(seed, index).problem

    def solved_problem(self, seed: int, index: int) -> Solved:
        """The same with its solution."""
        return self._training(keyed_random("equations", "train", seed, index))

    def held_out_problems(self, count: int) -> Sequence[Problem]:
        """The first `count` distinct held-out equations, the same for every seed, languages alternating."""
        rng = keyed_random("equations", "held-out", HELD_OUT_SEED)

        def draw(language: Language) -> Problem | None:
            equation = draw_equation(rng, self.min_level, self.max_level, self.max_x)
            return self._solved(rng, equation, language).problem if may_test_on(equation) else None

        return distinct_held_out(draw, count, DRAWS_PER_HELD_OUT_PROBLEM, "equations")

    def documents(self, seed: int, start: int, count: int) -> Iterator[str]:
        """Pre-training documents, numbered, each a function of (seed, number): facts, or a question with an answer."""
        for number in range(start, start + count):
            rng = keyed_random("equations", "document", seed, number)
            if rng.random() < FACTS_SHARE:
                yield "\n".join(_fact(rng, self.max_x) for _ in range(FACTS_PER_DOCUMENT))
            else:
                yield question_document(rng, self._training(rng), self.manner, self.wrong_share)

    def _training(self, rng: random.Random) -> Solved:
        while True:
            equation = draw_equation(rng, self.min_level, self.max_level, self.max_x)
            if may_train_on(equation):
                return self._solved(rng, equation, rng.choice(LANGUAGES))

    def _solved(self, rng: random.Random, equation: Equation, language: Language) -> Solved:
        question = question_text(rng, equation, language, rng.random() < self.word_share)
        problem = Problem(question, str(equation.solution), equation.key(), language, equation.level)
        lines = equation.steps()
        wrong = tuple(str(equation.solution + off) for off in (-2, -1, 1, 2))
        slips = tuple(
            (number, f"{line}{int(value) + off}")
            for number, (line, value) in enumerate(lines)
            if value
            for off in (-1, 1)
        )
        return Solved(problem, tuple(line + value for line, value in lines), wrong, slips)


def _fact(rng: random.Random, max_x: int) -> str:
    """One line that one step decides: a quotient, a difference, and what they say about x."""
    slope, x = rng.randint(2, 9), rng.randint(1, max_x)
    while slope * x > MAX_VALUE:
        x = rng.randint(1, max_x)
    if rng.random() < 0.5:
        return f"{slope}*x={slope * x}, x={slope * x}/{slope}={x}"
    offset = rng.choice((-1, 1)) * rng.randint(1, MAX_OFFSET)
    while not 0 <= x + offset <= MAX_VALUE:
        offset = -offset
    return f"x{offset:+d}={x + offset}, x={x + offset}{-offset:+d}={x}"
