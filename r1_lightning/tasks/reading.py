"""From rows to what an adaptor makes of them, with an account of those that gave nothing.

Published files hold some rows that cannot be used. By default the first of them ends the run, in one line with its place; with
`unreadable: drop` they are left out, and counted. An adaptor may leave rows out by itself, too (a format that marks wrong
solutions): it gives None for them. One that reads several formats says which it took a row for, and how many there were of each is
said as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from r1_lightning.tasks.fields import Row
from r1_lightning.types.errors import InvalidInput

REFUSE, DROP = UNREADABLE = ("refuse", "drop")
Item = TypeVar("Item")


@dataclass
class Reading:
    """What became of the rows of a file: how many there were of each format, and why others gave nothing."""

    formats: Counter[str] = field(default_factory=Counter)
    left_out: int = 0
    unreadable: int = 0
    first: str = ""

    def text(self) -> str:
        """One line, "" where there is nothing that the reader of a log must know."""
        kinds = ", ".join(f"{name} ({count})" for name, count in self.formats.most_common())
        told = [f"read as {kinds}"] if kinds else []
        if self.left_out:
            told.append(f"left out by their format: {self.left_out}")
        if self.unreadable:
            told.append(f"unreadable: {self.unreadable} (first: {self.first})")
        return "; ".join(told)


def items_of(
    rows: Iterable[Row], make: Callable[[Row], Item | None], adaptor: Any, unreadable: str, reading: Reading
) -> Iterator[tuple[Row, Item]]:
    """Each row with what `make` makes of it; what gives nothing is counted in `reading`.

    Raises `InvalidInput` for the first row that cannot be read, unless `unreadable` is "drop".
    """
    name_of = getattr(adaptor, "format_name", None)
    for row in rows:
        try:
            item = make(row)
        except InvalidInput as error:
            if unreadable == REFUSE:
                raise
            reading.unreadable += 1
            reading.first = reading.first or str(error)
            continue
        if item is None:
            reading.left_out += 1
            continue
        if name_of is not None:
            reading.formats[name_of(row)] += 1
        yield row, item
