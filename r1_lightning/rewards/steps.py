"""Rule-based process supervision: judges the steps of a calculation (DeepSeekMath, arXiv:2402.03300, section 4.1.3).

The paper scores steps with a trained model. A written equation needs no model: `17+25=42` is right or wrong. So each equation of
integers is a step with score 1 or 0. As with every step reward, a model may learn to write many easy steps; the normalisation over
all steps of the group limits this gain, and `rollout/steps_mean` shows it.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from r1_lightning.types.text import Completion, Problem, StepVerdict

MAX_DIGITS = 12  # our tasks have no longer numbers, and int() of a million digits would be slow
# One side of an equation: numbers joined by + - *; bounded, so that the scan is linear.
_SIDE = rf"-?\d{{1,{MAX_DIGITS}}}(?:[+*-]\d{{1,{MAX_DIGITS}}}){{0,16}}"
_CHAIN = re.compile(rf"(?<![\d+*=-]){_SIDE}(?:={_SIDE})+(?![\d+*-])", re.ASCII)
_TERM = re.compile(r"[+-]?[^+-]+")


@dataclass(slots=True)
class EquationSteps:
    """One step per equation `a=b` of the text (`a=b=c` has two): 1.0 where both sides are equal, else 0.0."""

    def __call__(self, problem: Problem, completion: Completion) -> Sequence[StepVerdict]:
        del problem  # an equation is true or false independent of the question
        verdicts = []
        for match in _CHAIN.finditer(completion.text):
            sides, end = match.group().split("="), match.start()
            for left, right in itertools.pairwise(sides):
                end += len(left) + 1
                is_right = value_of(left) == value_of(right)
                verdicts.append(StepVerdict(end + len(right), float(is_right), f"{left}={right}"))
        return verdicts


def value_of(expression: str) -> int:
    """Return the value of integers joined by +, - and *, products first: 2+3*4 is 14."""
    total = 0
    for term in _TERM.findall(expression):
        product = 1
        for factor in term.lstrip("+-").split("*"):
            product *= int(factor)
        total += -product if term.startswith("-") else product
    return total
