"""The base class of generated tasks: an endless training stream, a held-out set, a corpus, and the train/test split.

A task defines how to draw an *item* (an equation, an order, a request), on which side of the train/test split it lies, and how to
turn it into a problem with its solution. This class does the rest: number n of a stream is a function of (stream, seed, n) alone;
training draws until an item may be trained on, the held-out set until it has the requested number of distinct items, the same for
every seed.

`ArithmeticTask` is older and keeps its own streams, because existing models were trained on its texts.
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

# At least one draw in 64 may be tested on; if this many draws find no new problem, there are no more.
DRAWS_PER_HELD_OUT_PROBLEM = 1_000

Item = TypeVar("Item")


class GeneratedTask(ABC, Generic[Item]):
    """The `ProblemSource` and `SolvedSource` of randomly drawn items.

    `stream` names the task's random streams, `item_plural` its items in messages; `held_out_seed` seeds the held-out set.
    """

    content_version: ClassVar[str]
    stream: ClassVar[str]
    item_plural: ClassVar[str]
    held_out_seed: ClassVar[int]

    @abstractmethod
    def draw(self, rng: random.Random) -> Item:
        """Draw any item that the settings allow, of either side of the split."""

    @abstractmethod
    def may_train_on(self, item: Item, /) -> bool:
        """True if neither the item nor any intermediate result of its solution is held out."""

    @abstractmethod
    def may_test_on(self, item: Item, /) -> bool:
        """True if the item is held out."""

    @abstractmethod
    def solve(self, rng: random.Random, item: Item, language: Language, /) -> Solved:
        """Return a problem about the item, with its solution."""

    @abstractmethod
    def document(self, rng: random.Random) -> str:
        """Return one pre-training document."""

    def train_problem(self, seed: int, index: int) -> Problem:
        """Problem number `index` of the endless training stream of `seed`."""
        return self.solved_problem(seed, index).problem

    def solved_problem(self, seed: int, index: int) -> Solved:
        """Return `train_problem` with its solution."""
        return self.solved_training(keyed_random(self.stream, "train", seed, index))

    def held_out_problems(self, count: int) -> Sequence[Problem]:
        """The first `count` distinct held-out problems, the same for every seed, languages alternating."""
        rng = keyed_random(self.stream, "held-out", self.held_out_seed)

        def draw(language: Language) -> Problem | None:
            item = self.draw(rng)
            return self.solve(rng, item, language).problem if self.may_test_on(item) else None

        return distinct_held_out(draw, count, DRAWS_PER_HELD_OUT_PROBLEM, self.item_plural)

    def documents(self, seed: int, start: int, count: int) -> Iterator[str]:
        """Yield pre-training documents, each a function of (seed, number)."""
        for number in range(start, start + count):
            yield self.document(keyed_random(self.stream, "document", seed, number))

    def draw_training(self, rng: random.Random) -> Item:
        """Draw an item that may be trained on."""
        while True:
            item = self.draw(rng)
            if self.may_train_on(item):
                return item

    def solved_training(self, rng: random.Random) -> Solved:
        """Draw an item that may be trained on, then a language, and return its problem with the solution."""
        return self.solve(rng, self.draw_training(rng), rng.choice(LANGUAGES))


@dataclass(frozen=True)
class LevelledTask(GeneratedTask[Item]):
    """A generated task with levels `min_level` .. `max_level`; `wrong_share` of its corpus's answers are wrong."""

    min_level: int = 1
    max_level: int = 3
    wrong_share: float = 0.35
    top_level: ClassVar[int] = 3

    def __post_init__(self) -> None:
        require_int("task.min_level", self.min_level, 1, self.top_level)
        require_int("task.max_level", self.max_level, self.min_level, self.top_level)
        require_number("task.wrong_share", self.wrong_share, 0.0, 1.0)


class GeneratedPreferences(ABC):
    """An endless `PreferenceSource`; `stream` and `held_out_seed` are as in `GeneratedTask`."""

    content_version: ClassVar[str]
    stream: ClassVar[str]
    held_out_seed: ClassVar[int]

    @abstractmethod
    def item(self, rng: random.Random, is_held_out: bool) -> PreferenceItem:
        """Return one item of the test split if `is_held_out`, else of the training split."""

    def training_items(self, seed: int, wanted: int) -> Sequence[PreferenceItem]:
        """Return items 0 .. `wanted` - 1 of `seed`."""
        return [self.item(keyed_random(self.stream, seed, index), is_held_out=False) for index in range(wanted)]

    def held_out_items(self, count: int) -> Sequence[PreferenceItem]:
        """Return the first `count` held-out items, the same for every seed."""
        stream = f"held-out-{self.stream}"
        return [self.item(keyed_random(stream, self.held_out_seed, index), is_held_out=True) for index in range(count)]


def distinct_held_out(
    draw: Callable[[Language], Problem | None], count: int, draws_each: int, what: str
) -> list[Problem]:
    """Return the first `count` distinct problems of `draw` (None: not a test item), languages alternating.

    Raises InvalidInput if `count` * `draws_each` draws do not find as many.
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
