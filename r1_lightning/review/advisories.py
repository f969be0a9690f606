"""Rules that name what is wrong with a run: what is measured, the threshold, since which step, and one line of advice.

The rules for every stage that trains are in `training_rules`, those for RL in `rl_rules`. A threshold is chosen so that no finished
healthy run of the miniature comes near it; a rule that says why one passes it all the same belongs in the band of the experiment.
So no advisory is given for a curve that lies within the band of the run's own experiment.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from r1_lightning.review.facts import Facts
from r1_lightning.review.rl_rules import RL_RULES
from r1_lightning.review.rules import Rule
from r1_lightning.review.training_rules import TRAINING_RULES

RULES: tuple[Rule, ...] = (*TRAINING_RULES, *RL_RULES)


@dataclass(frozen=True)
class Advisory:
    """One rule that a run breaks.

    `rule` says in words what is measured and what is too much, `threshold` and `value` are in the unit of the rule, `from_step` is
    the optimizer step (from 0) since which it lasts; `is_failure` where a run cannot have learned. `exactly` is what was found, in
    words, where the rule covers several things.
    """

    name: str
    rule: str
    threshold: float
    value: float
    from_step: int
    advice: str
    is_failure: bool = False
    exactly: str = ""


def advisories(facts: Facts, expected: Iterable[str] = ()) -> list[Advisory]:
    """Return the broken rules: failures first, of these what is no number, then by step.

    None is about the curves `expected`, which lie within their band.
    """
    known, found = set(expected), []
    for rule in RULES:
        if rule.measures in known or (finding := rule.find(facts)) is None:
            continue
        told = (rule.name, rule.rule, rule.threshold, finding.value, finding.from_step, rule.advice, rule.is_failure)
        found.append(Advisory(*told, finding.exactly))
    # What is no number ends a run: a reward that was flat until then does not explain it.
    return sorted(found, key=lambda one: (not one.is_failure, not one.exactly, one.from_step))
