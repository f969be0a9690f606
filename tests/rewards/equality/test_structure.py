"""The structure of answers: which have an order, which have a name, and which are solved."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1_lightning.rewards.equality.structure import by_structure


@pytest.mark.parametrize(
    ("given_text", "reference", "same"),
    [
        ("2,1", "1,2", True),
        ("1,1,2", "1,2", False),
        (r"\{1,1,2\}", r"\{1,2\}", True),
        ("(2,1)", "(1,2)", False),
        ("x=1, y=2", "(1,2)", True),
        ("y=2, x=1", "(1,2)", False),  # not in the order of a point
        ("f(1)=999", "f(1)=2", False),
        ("2x=10", "x=5", False),
        ("x=2+3=5", "5", True),
        ("66_7", "66_8", False),
        (r"\begin{cases}x=2\\y=1\end{cases}", "y=1,x=2", True),
        ("((((1,2),3),4),5)", "((((1,2),3),4),6)", False),
    ],
)
def test_structures(given_text: str, reference: str, same: bool) -> None:
    assert by_structure(given_text, reference).same is same


@given(st.lists(st.integers(0, 4), min_size=2, max_size=5), st.randoms(use_true_random=False))
def test_a_list_counts_its_members(numbers: list[int], random: object) -> None:
    turned = sorted(numbers, key=lambda _: random.random())  # type: ignore[attr-defined]
    assert by_structure(", ".join(map(str, turned)), ", ".join(map(str, numbers))).same
    assert not by_structure(", ".join(map(str, [*numbers, numbers[0]])), ", ".join(map(str, numbers))).same
