"""A rule tells what it checks: its threshold stands in its text, and both are one number."""

from __future__ import annotations

from r1_lightning.review.facts import Facts, Finding
from r1_lightning.review.rules import Rule


def test_the_threshold_stands_in_the_text_and_goes_to_the_check() -> None:
    asked = []

    def check(facts: Facts, threshold: float) -> Finding:
        asked.append(threshold)
        return Finding(1.0, 3)

    rule = Rule("x", "more than {threshold:.0%} of it", 0.25, check, "do it")
    assert rule.rule == "more than 25% of it"
    assert rule.find(Facts({})) == Finding(1.0, 3) and asked == [0.25]
