"""Applies an adaptor to rows, and counts the rows by format and by the reason for skipping them.

Published files have some unusable rows. By default the first of them stops the run with a one-line error that names its place; with
`unreadable: drop` such rows are skipped and counted. An adaptor may also skip rows itself (in a format that marks wrong solutions)
by returning None. An adaptor for several formats names each row's format, and the rows are counted by format.
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
    """Counts of a file's rows: by format, and by the reason for skipping them."""

    formats: Counter[str] = field(default_factory=Counter)
    left_out: int = 0
    unreadable: int = 0
    first: str = ""

    def text(self) -> str:
        """Return a one-line summary for the log; "" if there is nothing to report."""
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
    """Yield each row with the result of `make`; rows without a result are counted in `reading`.

    Raises `InvalidInput` for the first unreadable row, unless `unreadable` is "drop".
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
