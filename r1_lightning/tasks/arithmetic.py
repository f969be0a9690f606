"""The arithmetic problem source: chains of two or three operations, with questions in English and Chinese.

`tasks/chains.py` holds the mathematics and the train/test split, `tasks/arithmetic_text.py` the wording.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from r1_lightning.tasks.arithmetic_text import DocumentWriter, question_text
from r1_lightning.tasks.chains import Chain, draw_chain, draw_training_chain, may_test_on
from r1_lightning.tasks.keyed import keyed_random
from r1_lightning.tasks.solved import Solved
from r1_lightning.tasks.step_text import MANNERS, Manner
from r1_lightning.text.language import LANGUAGES
from r1_lightning.types.errors import InvalidInput, require_choice, require_int, require_number
from r1_lightning.types.text import Language, Problem

HELD_OUT_SEED = 20_260_101  # the held-out set is the same for every training seed
# 1 in 8 chains of two operations, 1 in 64 of three, may be tested on; if far more draws find no new one, there are no more.
DRAWS_PER_HELD_OUT_PROBLEM = 2_000


@dataclass(frozen=True)
class ArithmeticTask:
    """The problem source (see `types/text.py`) of arithmetic chains with `min_operations` .. `max_operations` steps.

    `wrong_share` is the share of wrong answers among the corpus's answers without reasoning; `word_share` the share of questions
    in words rather than as an expression; `manner` the style of the corpus's reasoning (`tasks/step_text.py`).
    """

    min_operations: int = 2
    max_operations: int = 3
    word_share: float = 0.2
    wrong_share: float = 0.35
    manner: Manner = "sparing"
    content_version: ClassVar[str] = "arithmetic-3"

    def __post_init__(self) -> None:
        require_int("task.min_operations", self.min_operations, 2)
        require_int("task.max_operations", self.max_operations, self.min_operations, 8)
        require_number("task.word_share", self.word_share, 0.0, 1.0)
        require_number("task.wrong_share", self.wrong_share, 0.0, 1.0)
        require_choice("task.manner", self.manner, MANNERS)

    def train_problem(self, seed: int, index: int) -> Problem:
        """Problem number `index` of the endless training stream of `seed`."""
        return self.solved_problem(seed, index).problem

    def solved_problem(self, seed: int, index: int) -> Solved:
        """Problem number `index` as in `train_problem`, with the steps of its left-to-right solution."""
        rng = keyed_random("train", seed, index)
        chain = draw_training_chain(rng, self.min_operations, self.max_operations)
        return Solved(self._problem(rng, chain), tuple(f"{left}={right}" for left, right in chain.facts()))

    def held_out_problems(self, count: int) -> Sequence[Problem]:
        """The first `count` distinct held-out problems, the same for every seed, languages alternating."""
        require_int("held_out_problems", count, 1)
        rng = keyed_random("held-out", HELD_OUT_SEED)
        problems: dict[str, Problem] = {}
        for _ in range(DRAWS_PER_HELD_OUT_PROBLEM * count):
            chain = draw_chain(rng, self.min_operations, self.max_operations)
            if may_test_on(chain) and chain.key() not in problems:
                language = LANGUAGES[len(problems) % len(LANGUAGES)]
                problems[chain.key()] = self._problem(rng, chain, language)
                if len(problems) == count:
                    return list(problems.values())
        raise InvalidInput(f"held_out_problems={count} is not allowed: these chains give only {len(problems)} of them")

    def _problem(self, rng: random.Random, chain: Chain, language: Language | None = None) -> Problem:
        chosen: Language = rng.choice(LANGUAGES) if language is None else language
        question = question_text(rng, chain.expression(), chosen, in_words=rng.random() < self.word_share)
        return Problem(question, str(chain.value()), chain.key(), chosen, chain.n_operations)

    def documents(self, seed: int, start: int, count: int) -> Iterator[str]:
        """Yield pre-training documents (see `arithmetic_text.DocumentWriter`), each a function of (seed, number)."""
        shares = (self.word_share, self.wrong_share, self.manner)
        writer = DocumentWriter(self.min_operations, self.max_operations, *shares)
        for number in range(start, start + count):
            yield writer.document(keyed_random("document", seed, number))
