"""The form of a rule. Its text holds its threshold, so that what is told is what is checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from r1_lightning.review.facts import Facts, Finding


@dataclass(frozen=True)
class Rule:
    """`check(facts, threshold)` returns what the rule found, or None; `rule` may name `{threshold}` in a format of its own.

    `measures` is the curve that the rule is about: it is silent where that curve lies within the band of the experiment.
    """

    name: str
    text: str
    threshold: float
    check: Callable[[Facts, float], Finding | None]
    advice: str
    measures: str = ""
    is_failure: bool = False

    @property
    def rule(self) -> str:
        """The rule in words, its threshold put in."""
        return self.text.format(threshold=self.threshold)

    def find(self, facts: Facts) -> Finding | None:
        """Return what is wrong; None if nothing is, or the run does not log what the rule needs."""
        return self.check(facts, self.threshold)
