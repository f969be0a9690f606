"""The miniature's logic task in English and Chinese: the largest sum, the oldest person, and syllogisms.

    What is the largest of 17+25, 50-9                                              17+25=42, 50-9=41, 42>41             42
    Is 17+25 larger than 50-9                                                       the same                             yes
    Ann is older than Bob. Cid is younger than Bob. Who is the oldest               Ann>Bob, Bob>Cid, Ann>Bob>Cid        Ann
    Every dax is a rex. Every rex is a mip. Does it follow that every mip is a dax  dax<rex, rex<mip, dax<rex<mip        no

The level sets the number of things to combine: 2, 3 or 4 sums; orders of 3, 4 or 5. From level 2 on the statements are shuffled.

**Held-out by construction.** The key of a comparison is its set of sums; the key of an order is the sequence of its members,
independent of relation, question and language. A hash of the key decides the side of the train/test split. An item may be tested on
only if it is held out, and trained on only if no part that its solution compares is held out: no two or more of its sums, no three
or more neighbours of its order. A comparison of just two names is a fact, and both sides share it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import ClassVar, NamedTuple

from r1_lightning.tasks.chains import draw_term, fact_value
from r1_lightning.tasks.generated import LevelledTask
from r1_lightning.tasks.keyed import is_held_out_key
from r1_lightning.tasks.solved import Solved, question_document
from r1_lightning.tasks.step_text import MANNERS, Manner
from r1_lightning.tasks.words import CLASSES, PEOPLE
from r1_lightning.text.language import LANGUAGES
from r1_lightning.types.errors import require_choice
from r1_lightning.types.text import Language, Problem

INVERTED_SHARE = 0.3  # of statements: "Bob is younger than Ann" for "Ann is older than Bob"
FACTS_SHARE = 0.30  # of documents

_YES = {"en": ("yes", "no"), "zh": ("对", "错")}
_EXTREME = {
    "en": ("What is the largest of {}", "What is the smallest of {}"),
    "zh": ("{}中最大的是多少", "{}中最小的是多少"),
}
_IS_LARGER = {"en": "Is {} larger than {}", "zh": "{}比{}大吗"}
_LIST = {"en": ", ", "zh": "、"}
# The words of a relation: more, less, most, least.
_RELATIONS = {
    "en": (
        ("older", "younger", "oldest", "youngest"),
        ("taller", "shorter", "tallest", "shortest"),
        ("faster", "slower", "fastest", "slowest"),
    ),
    "zh": (("年长", "年轻", "最年长", "最年轻"), ("高", "矮", "最高", "最矮"), ("快", "慢", "最快", "最慢")),
}
_SAID = {"en": "{} is {} than {}", "zh": "{}比{}{}"}  # the Chinese names come before the word
_WHO = {"en": "Who is the {}", "zh": "谁{}"}
_IS_MORE = {"en": "Is {} {} than {}", "zh": "{}比{}{}吗"}
_EVERY = {"en": "Every {} is a {}", "zh": "每个{}都是{}"}
_FOLLOWS = {"en": "Does it follow that every {} is a {}", "zh": "能推出每个{}都是{}吗"}
_STOP = {"en": ". ", "zh": "。"}


class Sums(NamedTuple):
    """Sums to compare, no two of equal value."""

    expressions: tuple[str, ...]

    @property
    def level(self) -> int:
        return len(self.expressions) - 1

    def parts(self) -> Iterator[str]:
        """Yield the key of every subset of two or more sums."""
        for size in range(2, len(self.expressions) + 1):
            yield from (Sums(some).key() for some in combinations(self.expressions, size))

    def key(self) -> str:
        return "sums:" + ",".join(sorted(self.expressions))


class Order(NamedTuple):
    """An order: indices of people from most to least, or of classes from the narrowest to the widest."""

    members: tuple[int, ...]
    is_classes: bool = False

    @property
    def level(self) -> int:
        return len(self.members) - 2

    def parts(self) -> Iterator[str]:
        """Yield the key of every run of three or more neighbours."""
        for size in range(3, len(self.members) + 1):
            for start in range(len(self.members) - size + 1):
                yield Order(self.members[start : start + size], self.is_classes).key()

    def key(self) -> str:
        return ("classes:" if self.is_classes else "order:") + ",".join(map(str, self.members))


Comparison = Sums | Order


def may_train_on(comparison: Comparison) -> bool:
    """True if no part is held out."""
    return not any(is_held_out_key(key) for key in comparison.parts())


def may_test_on(comparison: Comparison) -> bool:
    """True if the comparison itself is held out."""
    return is_held_out_key(comparison.key())


def draw_comparison(rng: random.Random, min_level: int, max_level: int) -> Comparison:
    """Draw sums or an order of level `min_level` .. `max_level`."""
    level, kind = rng.randint(min_level, max_level), rng.random()
    if kind >= 0.4:
        return Order(tuple(rng.sample(range(len(PEOPLE["en"])), level + 2)), is_classes=kind >= 0.8)
    sums: dict[int, str] = {}
    while len(sums) < level + 1:
        start = rng.randint(2, 60)
        expression = f"{start}{draw_term(rng, start):+d}"
        sums[fact_value(expression)] = expression
    return Sums(tuple(sums.values()))


@dataclass(frozen=True)
class ComparisonTask(LevelledTask[Comparison]):
    """The problem source (see `types/text.py`) of comparisons of level `min_level` .. `max_level`.

    `wrong_share` is the share of wrong answers among the corpus's answers without reasoning; `manner` the style of its reasoning
    (`tasks/step_text.py`).
    """

    manner: Manner = "mixed"
    content_version: ClassVar[str] = "comparison-1"
    stream: ClassVar[str] = "comparison"
    item_plural: ClassVar[str] = "comparisons"
    held_out_seed: ClassVar[int] = 20_261_123

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice("task.manner", self.manner, MANNERS)

    def draw(self, rng: random.Random) -> Comparison:
        return draw_comparison(rng, self.min_level, self.max_level)

    def may_train_on(self, comparison: Comparison) -> bool:
        return may_train_on(comparison)

    def may_test_on(self, comparison: Comparison) -> bool:
        return may_test_on(comparison)

    def solve(self, rng: random.Random, comparison: Comparison, language: Language) -> Solved:
        if isinstance(comparison, Sums):
            return _solve_sums(rng, comparison, language)
        return (_solve_classes if comparison.is_classes else _solve_order)(rng, comparison, language)

    def document(self, rng: random.Random) -> str:
        """Return a document of facts, or of a question with an answer."""
        if rng.random() < FACTS_SHARE:
            return _facts(rng)
        return question_document(rng, self.solved_training(rng), self.manner, self.wrong_share)


def _solve_sums(rng: random.Random, sums: Sums, language: Language) -> Solved:
    values = [fact_value(expression) for expression in sums.expressions]
    if sums.level == 1 and rng.random() < 0.4:
        question = _IS_LARGER[language].format(*sums.expressions)
        answer, wrong = _yes_or_no(values[0] > values[1], language)
    else:
        wants_smallest = rng.randrange(2)
        question = _EXTREME[language][wants_smallest].format(_LIST[language].join(sums.expressions))
        answer = str(min(values) if wants_smallest else max(values))
        wrong = tuple(str(value) for value in values if str(value) != answer)
    steps = [f"{expression}={value}" for expression, value in zip(sums.expressions, values, strict=True)]
    slips = [
        (number, f"{expression}={values[number] + off}")
        for number, expression in enumerate(sums.expressions)
        for off in (-1, 1)
    ]
    last = ">".join(map(str, sorted(values, reverse=True)))
    problem = Problem(question, answer, sums.key(), language, sums.level)
    return Solved(problem, (*steps, last), wrong, tuple(slips))


def _solve_order(rng: random.Random, order: Order, language: Language) -> Solved:
    names = [PEOPLE[language][number] for number in order.members]
    more, less, most, least = rng.choice(_RELATIONS[language])
    said, steps, slips = [], [], []
    for number, (high, low) in enumerate(_stated_pairs(rng, names)):
        inverted = rng.random() < INVERTED_SHARE
        said.append(_say(_SAID, language, low, less, high) if inverted else _say(_SAID, language, high, more, low))
        steps.append(f"{high}>{low}")
        slips.append((number, f"{low}>{high}"))
    if rng.random() < 0.3:
        first, second = _far_apart(rng, len(names))
        asked = _say(_IS_MORE, language, names[first], more, names[second])
        answer, wrong = _yes_or_no(first < second, language)
    else:
        wants_least = rng.randrange(2)
        asked = _WHO[language].format((most, least)[wants_least])
        answer = names[-1 if wants_least else 0]
        wrong = tuple(name for name in names if name != answer)
    problem = Problem(_STOP[language].join([*said, asked]), answer, order.key(), language, order.level)
    return Solved(problem, (*steps, ">".join(names)), wrong, tuple(slips))


def _solve_classes(rng: random.Random, order: Order, language: Language) -> Solved:
    names = [CLASSES[language][number] for number in order.members]
    pairs = _stated_pairs(rng, names)
    said = [_EVERY[language].format(*pair) for pair in pairs]
    first, second = _far_apart(rng, len(names))
    asked = _FOLLOWS[language].format(names[first], names[second])
    answer, wrong = _yes_or_no(first < second, language)
    slips = tuple((number, f"{wide}<{narrow}") for number, (narrow, wide) in enumerate(pairs))
    steps = (*(f"{narrow}<{wide}" for narrow, wide in pairs), "<".join(names))
    problem = Problem(_STOP[language].join([*said, asked]), answer, order.key(), language, order.level)
    return Solved(problem, steps, wrong, slips)


def _stated_pairs(rng: random.Random, names: Sequence[str]) -> list[tuple[str, str]]:
    """Return the pairs of neighbours: in order for three names, shuffled for more."""
    pairs = list(pairwise(names))
    if len(names) > 3:
        rng.shuffle(pairs)
    return pairs


def _far_apart(rng: random.Random, count: int) -> tuple[int, int]:
    """Draw two positions that are not neighbours, so that no statement answers the question directly."""
    first = rng.randrange(count)
    second = rng.choice(
        [place for place in range(count) if abs(place - first) != 1 and place != first] or [count - 1 - first]
    )
    return first, second


def _say(form: dict[str, str], language: str, first: str, word: str, second: str) -> str:
    return form[language].format(*((first, word, second) if language == "en" else (first, second, word)))


def _yes_or_no(is_so: bool, language: Language) -> tuple[str, tuple[str, ...]]:
    """Return the right answer, and the wrong one."""
    yes, no = _YES[language]
    return (yes, (no,)) if is_so else (no, (yes,))


def _facts(rng: random.Random) -> str:
    """Return facts about pairs of numbers, people or classes; no name occurs twice, so that no two lines form an order."""
    language = rng.choice(LANGUAGES)
    if rng.random() < 0.4:
        pairs = [sorted(rng.sample(range(100), 2), reverse=True) for _ in range(6)]
        return "\n".join(f"{high}>{low}" for high, low in pairs)
    lines = []
    if rng.random() < 0.65:
        names = rng.sample(PEOPLE[language], 8)
        for high, low in zip(names[::2], names[1::2], strict=True):
            more, less, _, _ = rng.choice(_RELATIONS[language])
            inverted = rng.random() < 0.5
            said = _say(_SAID, language, low, less, high) if inverted else _say(_SAID, language, high, more, low)
            lines.append(f"{said}: {high}>{low}")
    else:
        names = rng.sample(CLASSES[language], 8)
        lines = [
            f"{_EVERY[language].format(*pair)}: {pair[0]}<{pair[1]}"
            for pair in zip(names[::2], names[1::2], strict=True)
        ]
    return "\n".join(lines)
