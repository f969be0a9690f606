"""The miniature's algebra task in English and Chinese: linear equations in x with an integer solution, solved line by line.

    3*x+5=26          level 1                     3*x=26-5=21, x=21/3=7
    3*(x+2)=27        level 2: brackets           3*x+6=27, then as level 1
    7*x+5=4*x+26      level 2: x on both sides    3*x+5=26, then as level 1
    7*(x+2)=4*x+35    level 3: both

One line is a fact that a small model can learn (a sum, a quotient of the times table); a complete solution takes several lines.

**Held-out by construction.** The key of an equation is its two sides, multiplied out, in either order: `3*(x+2)=27` and `27=3*x+6`
have the same key. A *state* is the remaining equation at any moment of the solution. An equation that one step solves (`3*x=21`,
`x+5=12`) is a fact; both sides of the train/test split share it. A hash of the key assigns every other equation to a side. An
equation may be tested on only if all of its states are held out, and trained on only if none is.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from r1_lightning.tasks.generated import LevelledTask
from r1_lightning.tasks.keyed import is_held_out_key
from r1_lightning.tasks.solved import Solved, question_document
from r1_lightning.tasks.step_text import MANNERS, Manner
from r1_lightning.types.errors import require_choice, require_int, require_number
from r1_lightning.types.text import Language, Problem

MAX_SLOPE, MAX_X, MAX_VALUE = 9, 20, 99  # of any line of a solution; MAX_VALUE bounds the numbers without x
MAX_OFFSET, MAX_INNER = 19, 9  # of a side without brackets, and within brackets
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
        """Return the written form: `3*x+5`, `x-4`, `3*x`, `26`."""
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
        """True if one step solves the equation: `3*x=21`, `x+5=12`."""
        return self.right.slope == 0 and (self.left.offset == 0 or self.left.slope == 1)

    def key(self) -> str:
        return "equation:" + "|".join(sorted((str(self.left), str(self.right))))

    def collected(self) -> Equation:
        """Return the equation with x on the left side only."""
        return Equation(Side(self.left.slope - self.right.slope, self.left.offset), Side(0, self.right.offset))

    def states(self) -> list[Equation]:
        """Return this equation and its remaining equations, as long as more than one step remains."""
        states = [self, self.collected()] if self.right.slope else [self]
        return [state for state in states if not state.is_fact]

    def steps(self) -> list[tuple[str, str]]:
        """Return the solution's lines, each split before its last number; that number is "" where no mistake can be planted."""
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
    """True if no state is held out."""
    return not any(is_held_out_key(state.key()) for state in equation.states())


def may_test_on(equation: Equation) -> bool:
    """True if every state is held out."""
    return all(is_held_out_key(state.key()) for state in equation.states())


def draw_equation(rng: random.Random, min_level: int, max_level: int, max_x: int = MAX_X) -> Equation:
    """Draw an equation of level `min_level` .. `max_level` with a solution in 1 .. `max_x`.

    Every number without x in its solution lies in 0 .. MAX_VALUE.
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
    """Return the question without its final mark; equations of level 1 may be written in words."""
    if in_words and equation.level == 1:
        told, signs = _TOLD[language]
        sign = signs["+" if equation.left.offset > 0 else "-"]
        return told.format(equation.left.slope, sign, abs(equation.left.offset), equation.right.offset)
    return rng.choice(_QUESTIONS[language]).format(equation)


@dataclass(frozen=True)
class EquationsTask(LevelledTask[Equation]):
    """The problem source (see `types/text.py`) of equations of level `min_level` .. `max_level`, solved by 1 .. `max_x`.

    With `max_x` 9 all facts are in the times table. `word_share` is the share of level-1 equations written in words, `wrong_share`
    the share of wrong answers among the corpus's answers without reasoning; `manner` the style of its reasoning
    (`tasks/step_text.py`).
    """

    max_x: int = MAX_X
    word_share: float = 0.3
    manner: Manner = "mixed"
    content_version: ClassVar[str] = "equations-1"
    stream: ClassVar[str] = "equations"
    item_plural: ClassVar[str] = "equations"
    held_out_seed: ClassVar[int] = 20_261_122

    def __post_init__(self) -> None:
        super().__post_init__()
        require_int("task.max_x", self.max_x, 1, MAX_X)
        require_number("task.word_share", self.word_share, 0.0, 1.0)
        require_choice("task.manner", self.manner, MANNERS)

    def draw(self, rng: random.Random) -> Equation:
        return draw_equation(rng, self.min_level, self.max_level, self.max_x)

    def may_train_on(self, equation: Equation) -> bool:
        return may_train_on(equation)

    def may_test_on(self, equation: Equation) -> bool:
        return may_test_on(equation)

    def document(self, rng: random.Random) -> str:
        """Return a document of facts, or of a question with an answer."""
        if rng.random() < FACTS_SHARE:
            return "\n".join(_fact(rng, self.max_x) for _ in range(FACTS_PER_DOCUMENT))
        return question_document(rng, self.solved_training(rng), self.manner, self.wrong_share)

    def solve(self, rng: random.Random, equation: Equation, language: Language) -> Solved:
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
    """Return one line with one step: a quotient or a difference, and the value of x that it gives."""
    slope, x = rng.randint(2, 9), rng.randint(1, max_x)
    while slope * x > MAX_VALUE:
        x = rng.randint(1, max_x)
    if rng.random() < 0.5:
        return f"{slope}*x={slope * x}, x={slope * x}/{slope}={x}"
    offset = rng.choice((-1, 1)) * rng.randint(1, MAX_OFFSET)
    while not 0 <= x + offset <= MAX_VALUE:
        offset = -offset
    return f"x{offset:+d}={x + offset}, x={x + offset}{-offset:+d}={x}"
