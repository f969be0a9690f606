"""Which steps stand in a page of bounded size."""

from __future__ import annotations

import pytest

from r1_lightning.review.page.choosing import by_halves, fitting


@pytest.mark.parametrize(
    ("count", "order"), [(0, []), (1, [0]), (2, [1, 0]), (3, [2, 0, 1]), (9, [8, 0, 4, 2, 6, 1, 3, 5, 7])]
)
def test_newest_first_then_oldest_then_halves(count: int, order: list[int]) -> None:
    assert by_halves(range(count)) == order


@pytest.mark.parametrize("count", [10, 17, 100])
def test_every_step_comes_once(count: int) -> None:
    assert sorted(by_halves(range(count))) == list(range(count))


def test_all_that_fits_is_there() -> None:
    parts = {step: [1, 1] for step in range(4)}
    assert fitting(parts, int, 8) == parts


def test_what_does_not_fit_lies_between_the_others() -> None:
    """Room for 3 of 5 steps: the last, the first, the middle."""
    assert fitting({step: [2] for step in range(5)}, int, 6) == {0: [2], 2: [2], 4: [2]}


def test_one_step_takes_half_of_the_room_at_most() -> None:
    """Of the newest 5 of its 9 groups; 5 are left, and the first step needs 3."""
    assert fitting({0: [1, 2], 1: [1] * 9}, int, 10) == {0: [1, 2], 1: [1] * 5}


def test_nothing_fits() -> None:
    assert fitting({step: [100] for step in range(50)}, int, 10) == {}
