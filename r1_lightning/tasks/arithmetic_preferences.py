"""Synthetic preference pairs without a judge: of two worked solutions of one chain, the one without a mistake is better.

Both responses are texts of the miniature's corpus (`tasks/arithmetic_text.py`): reasoned, well formatted, of similar length. The
rejected one makes a mistake in one step and carries it to a wrong answer. The two differ in nothing but the arithmetic, so a reward
model that beats chance must check it. For pairs of a model's own samples see `rollout/sampled_preferences.py`.

Training and held-out pairs keep to the two sides of the train/test split of `tasks/chains.py`.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar

from r1_lightning.tasks.arithmetic import HELD_OUT_SEED
from r1_lightning.tasks.arithmetic_text import DocumentWriter, question_text
from r1_lightning.tasks.chains import draw_chain, may_test_on, may_train_on
from r1_lightning.tasks.generated import GeneratedPreferences
from r1_lightning.text.answers import final_answer
from r1_lightning.text.language import LANGUAGES
from r1_lightning.types.errors import InvalidInput, require_int
from r1_lightning.types.text import Preference

DRAWS_PER_PAIR = 5_000  # 1 in 8 or 64 chains (of two or three operations) is held out, and most allow a mistake


@dataclass(frozen=True)
class ArithmeticPreferences(GeneratedPreferences):
    """An endless source of pairs on chains with `min_operations` .. `max_operations` steps."""

    min_operations: int = 2
    max_operations: int = 3
    content_version: ClassVar[str] = "arithmetic-preferences-1"
    stream: ClassVar[str] = "preference"
    held_out_seed: ClassVar[int] = HELD_OUT_SEED

    def __post_init__(self) -> None:
        require_int("data.preferences.min_operations", self.min_operations, 2)
        require_int("data.preferences.max_operations", self.max_operations, self.min_operations, 8)

    def item(self, rng: random.Random, is_held_out: bool) -> Preference:
        allowed = may_test_on if is_held_out else may_train_on
        writer = DocumentWriter(self.min_operations, self.max_operations, word_share=0.2, wrong_share=0.0)
        for _ in range(DRAWS_PER_PAIR):
            chain = draw_chain(rng, self.min_operations, self.max_operations)
            if not allowed(chain):
                continue
            language = rng.choice(LANGUAGES)
            question = question_text(rng, chain.expression(), language, in_words=rng.random() < writer.word_share)
            chosen, rejected = (writer.answers[kind](rng, chain, language) for kind in ("reasoned", "slip_unnoticed"))
            if final_answer(rejected) != str(
                chain.value()
            ):  # equal if no step allows a mistake, or if two mistakes cancel
                return Preference(question, chosen, rejected)
        raise InvalidInput(
            f"data.preferences: {DRAWS_PER_PAIR} draws gave no pair with {self.max_operations} operations"
        )
