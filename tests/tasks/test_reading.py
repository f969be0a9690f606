"""What becomes of rows: read, left out by their format, unreadable."""

from __future__ import annotations

import pytest

from r1_lightning.tasks.fields import Row
from r1_lightning.tasks.reading import DROP, REFUSE, Reading, items_of
from r1_lightning.types.errors import InvalidInput

ROWS = [Row({"n": n}, f"line {place}") for place, n in enumerate((3, -1, "x", 4, "y"), start=1)]


class Halves:
    """Half of `n`; negative ones are left out."""

    def format_name(self, row: Row) -> str:
        return "odd" if row.fields["n"] % 2 else "even"

    def make(self, row: Row) -> float | None:
        number = row.value("n")
        if not isinstance(number, int):
            row.refuse("n", number, "it must be a number")
        return number / 2 if number >= 0 else None


def test_the_first_unreadable_row_ends_it() -> None:
    reading = Reading()
    with pytest.raises(InvalidInput, match="line 3: n='x' is not allowed"):
        list(items_of(ROWS, Halves().make, Halves(), REFUSE, reading))
    assert reading.unreadable == 0


def test_or_they_are_left_out_and_counted() -> None:
    reading = Reading()
    found = [(row.where, item) for row, item in items_of(ROWS, Halves().make, Halves(), DROP, reading)]
    assert found == [("line 1", 1.5), ("line 4", 2.0)]
    assert reading.text() == (
        "read as odd (1), even (1); left out by their format: 1; "
        "unreadable: 2 (first: line 3: n='x' is not allowed: it must be a number)"
    )


def test_an_adaptor_of_one_format_has_nothing_to_say() -> None:
    reading = Reading()
    assert len(list(items_of(ROWS[:1], lambda row: row, object(), REFUSE, reading))) == 1 and reading.text() == ""
