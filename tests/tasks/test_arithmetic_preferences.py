"""Pairs of worked solutions: the chosen one is right, the rejected one wrong, and both keep to the train/test split."""

from __future__ import annotations

import re

import pytest

from r1_lightning.rewards.format import FormatReward
from r1_lightning.tasks import arithmetic_preferences
from r1_lightning.tasks.arithmetic_preferences import ArithmeticPreferences
from r1_lightning.tasks.chains import fact_value
from r1_lightning.tasks.keyed import is_held_out_key
from r1_lightning.text.answers import final_answer
from r1_lightning.text.reasoning_format import parse
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.text import Completion, Preference, Problem

SOURCE = ArithmeticPreferences()
FACT = re.compile(r"(\d+[-+*]\d+)=(\d+)")


def facts(text: str) -> list[tuple[str, int]]:
    thinking = parse(text).think or ""
    return [(left, int(right)) for left, right in FACT.findall(thinking)]


def is_right(text: str) -> bool:
    """Every written step holds, and the answer is that of the last."""
    steps = facts(text)
    return all(fact_value(left) == right for left, right in steps) and final_answer(text) == str(steps[-1][1])


@pytest.mark.parametrize("pair", SOURCE.training_items(3, 60))
def test_one_is_right_and_one_is_wrong(pair: Preference) -> None:
    assert is_right(pair.chosen) and not is_right(pair.rejected)
    problem = Problem(pair.question, "", "")
    for text in (pair.chosen, pair.rejected):
        assert FormatReward()(problem, Completion(text, 1, True)).score == 1.0, "form does not tell them apart"
    assert len(facts(pair.chosen)) == len(facts(pair.rejected))
    assert final_answer(pair.chosen) != final_answer(pair.rejected)


def test_random_access() -> None:
    first = SOURCE.training_items(0, 20)
    assert SOURCE.training_items(0, 5) == first[:5]
    assert SOURCE.training_items(1, 20) != first
    assert SOURCE.held_out_items(4) == SOURCE.held_out_items(8)[:4]


def test_held_out_pairs_are_on_the_other_side() -> None:
    """A chain's key is asked for again from the chosen solution's own steps: the operands of the whole chain."""

    def key(pair: Preference) -> str:
        steps = facts(pair.chosen)
        first = steps[0][0]
        terms = [re.split(r"^\d+", left)[1].replace("+", "") for left, _ in steps[1:]]
        if "*" in first:
            low, high = sorted(map(int, first.split("*")))
            return f"{low}*{high}|" + ",".join(map(str, sorted(map(int, terms))))
        start, term = re.match(r"(\d+)([-+]\d+)", first).groups()  # type: ignore[union-attr]
        return ",".join(map(str, sorted(int(n) for n in (start, term, *terms))))

    assert all(is_held_out_key(key(pair)) for pair in SOURCE.held_out_items(20))
    assert not any(is_held_out_key(key(pair)) for pair in SOURCE.training_items(0, 60))


def test_bad_values(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInput, match=r"data.preferences.min_operations=1"):
        ArithmeticPreferences(1, 3)
    with pytest.raises(InvalidInput, match=r"data.preferences.max_operations=2"):
        ArithmeticPreferences(3, 2)
    monkeypatch.setattr(arithmetic_preferences, "DRAWS_PER_PAIR", 0)
    with pytest.raises(InvalidInput, match="0 draws gave no pair with 3 operations"):
        SOURCE.training_items(0, 1)
