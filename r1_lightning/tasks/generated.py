"""What every generated task does alike: an endless training stream, a held-out set, a corpus, and the wall between them.

A task says how it draws a *thing* (an equation, an order, a request), on which side of the wall it stands, and how it becomes a
problem with its solution. All else is here: number n of a stream is a function of (stream, seed, n) alone; training draws until a
thing may be trained on, the held-out set until it has found as many distinct ones as are asked for, the same for every seed.

`ArithmeticTask` is older and keeps its own streams, because its texts are what trained models were made of.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

from r1_lightning.tasks.keyed import keyed_random
from r1_lightning.tasks.solved import Solved
from r1_lightning.text.language import LANGUAGES
from r1_lightning.types.errors import InvalidInput, require_int, require_number
from r1_lightning.types.text import Language, PreferenceItem, Problem

# At least one draw in 64 may be tested on; far more than this are needed only where there are no more.
DRAWS_PER_HELD_OUT_PROBLEM = 1_000

Thing = TypeVar("Thing")


class GeneratedTask(ABC, Generic[Thing]):
    """The `ProblemSource` and `SolvedSource` of things that are drawn.

    `stream` names the task's random streams, `things` what it draws in a message, `held_out_seed` belongs to the held-out set.
    """

    content_version: ClassVar[str]
    stream: ClassVar[str]
    things: ClassVar[str]
    held_out_seed: ClassVar[int]

    @abstractmethod
    def draw(self, rng: random.Random) -> Thing:
        """Any thing that the settings allow."""

    @abstractmethod
    def may_train_on(self, thing: Thing, /) -> bool:
        """Whether neither the thing nor what is worked out on the way to it is held out."""

    @abstractmethod
    def may_test_on(self, thing: Thing, /) -> bool:
        """Whether it is held out."""

    @abstractmethod
    def solve(self, rng: random.Random, thing: Thing, language: Language, /) -> Solved:
        """A problem about it, with its solution."""

    @abstractmethod
    def document(self, rng: random.Random) -> str:
        """One pre-training document."""

    def train_problem(self, seed: int, index: int) -> Problem:
        """Problem number `index` of the endless training stream of `seed`."""
        return self.solved_problem(seed, index).problem

    def solved_problem(self, seed: int, index: int) -> Solved:
        """The same with its solution."""
        return self.solved_training(keyed_random(self.stream, "train", seed, index))

    def held_out_problems(self, count: int) -> Sequence[Problem]:
        """The first `count` distinct held-out problems, the same for every seed, languages alternating."""
        rng = keyed_random(self.stream, "held-out", self.held_out_seed)

        def draw(language: Language) -> Problem | None:
            thing = self.draw(rng)
            return self.solve(rng, thing, language).problem if self.may_test_on(thing) else None

        return distinct_held_out(draw, count, DRAWS_PER_HELD_OUT_PROBLEM, self.things)

    def documents(self, seed: int, start: int, count: int) -> Iterator[str]:
        """Pre-training documents, numbered, each a function of (seed, number)."""
        for number in range(start, start + count):
            yield self.document(keyed_random(self.stream, "document", seed, number))

    def draw_training(self, rng: random.Random) -> Thing:
        """A thing that may be trained on."""
        while True:
            thing = self.draw(rng)
            if self.may_train_on(thing):
                return thing

    def solved_training(self, rng: random.Random) -> Solved:
        """The same with its solution, in a language drawn after it."""
        return self.solve(rng, self.draw_training(rng), rng.choice(LANGUAGES))


@dataclass(frozen=True)
class LevelledTask(GeneratedTask[Thing]):
    """A generated task of level `min_level` .. `max_level`, at most `top_level`; `wrong_share` of its corpus's answers is wrong."""

    min_level: int = 1
    max_level: int = 3
    wrong_share: float = 0.35
    top_level: ClassVar[int] = 3

    def __post_init__(self) -> None:
        require_int("task.min_level", self.min_level, 1, self.top_level)
        require_int("task.max_level", self.max_level, self.min_level, self.top_level)
        require_number("task.wrong_share", self.wrong_share, 0.0, 1.0)


class GeneratedPreferences(ABC):
    """A `PreferenceSource` of endless items; `stream` and `held_out_seed` as in `GeneratedTask`."""

    content_version: ClassVar[str]
    stream: ClassVar[str]
    held_out_seed: ClassVar[int]

    @abstractmethod
    def item(self, rng: random.Random, is_held_out: bool) -> PreferenceItem:
        """One item, on the side of the wall that is asked for."""

    def training_items(self, seed: int, wanted: int) -> Sequence[PreferenceItem]:
        """Items 0 .. `wanted` - 1 of `seed`."""
        return [self.item(keyed_random(self.stream, seed, index), is_held_out=False) for index in range(wanted)]

    def held_out_items(self, count: int) -> Sequence[PreferenceItem]:
        """The first `count` held-out items, the same for every seed."""
        stream = f"held-out-{self.stream}"
        return [self.item(keyed_random(stream, self.held_out_seed, index), is_held_out=True) for index in range(count)]


def distinct_held_out(
    draw: Callable[[Language], Problem | None], count: int, draws_each: int, what: str
) -> list[Problem]:
    """The first `count` distinct problems that `draw` gives (None: a draw that may not be tested on), languages alternating.

    Raises InvalidInput where `draws_each` draws for each did not find as many.
    """
    require_int("held_out_problems", count, 1)
    problems: dict[str, Problem] = {}
    for _ in range(draws_each * count):
        problem = draw(LANGUAGES[len(problems) % len(LANGUAGES)])
        if problem is not None and problem.problem_id not in problems:
            problems[problem.problem_id] = problem
            if len(problems) == count:
                return list(problems.values())
    raise InvalidInput(f"held_out_problems={count} is not allowed: these {what} give only {len(problems)} of them")
