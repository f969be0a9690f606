"""Reads lines of JSON from files that may come from anywhere: bounded in size, checked field by field, with one-line errors.

A file is read up to `MOST_BYTES`, a line up to `MOST_LINE_BYTES`; what a number, a text or a list may be is checked where it is
read. An error names file and line and quotes no more of the file than the start of one value.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1_lightning.artefacts.files import input_folder
from r1_lightning.types.errors import InvalidInput

MOST_BYTES = 256 * 2**20  # of a file
MOST_LINE_BYTES = 4 * 2**20  # of one line
MOST_COUNT = 2**53  # beyond it a JSON number is no longer exact everywhere
SHOWN = 40  # characters of a value in an error
MISSING: Any = object()


@dataclass(frozen=True, slots=True)
class Row:
    """One JSON object, with the place it was read from; its methods return a field of one type or raise `InvalidInput`."""

    values: Mapping[str, Any]
    where: str

    def text(self, name: str, default: Any = MISSING) -> str:
        """Return a text; half a surrogate pair, which no encoding can write, becomes U+FFFD."""
        value = self._value(name, default)
        return self._refuse(name, "a text") if not isinstance(value, str) else writable(value)

    def text_or_none(self, name: str) -> str | None:
        return None if self.values.get(name) is None else self.text(name)

    def flag(self, name: str) -> bool:
        value = self._value(name)
        return value if isinstance(value, bool) else self._refuse(name, "true or false")

    def flag_or_none(self, name: str) -> bool | None:
        return None if self.values.get(name) is None else self.flag(name)

    def count(self, name: str) -> int:
        """Return a whole number from 0 to 2^53."""
        value = self._value(name)
        is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_COUNT
        return value if is_count else self._refuse(name, "a whole number of at least 0")

    def number(self, name: str, default: float | None = None) -> float | None:
        """Return a finite number; `default` if it is missing or null."""
        value = self.values.get(name)
        if value is None:
            return default
        return _number(value) if _is_number(value) else self._refuse(name, "a finite number")

    def numbers(self, name: str, count: int) -> tuple[float | None, ...] | None:
        """Return a column of `count` numbers, some of which may be null; None if it is missing or null."""
        value = self.values.get(name)
        if value is None:
            return None
        fits = isinstance(value, list) and len(value) == count
        if not fits or not all(item is None or _is_number(item) for item in value):
            return self._refuse(name, f"{count} numbers, one for each token")
        return tuple(None if item is None else _number(item) for item in value)

    def texts(self, name: str) -> tuple[str, ...]:
        value = self._value(name)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            return self._refuse(name, "a list of texts")
        return tuple(writable(item) for item in value)

    def object(self, name: str) -> Row | None:
        """Return an object; None if it is missing or null."""
        value = self.values.get(name)
        if value is None:
            return None
        return Row(value, self.where) if isinstance(value, dict) else self._refuse(name, "an object")

    def objects(self, name: str, most: int) -> list[Row]:
        """Return a list of at most `most` objects; an empty one if it is missing."""
        value = self.values.get(name, [])
        if not isinstance(value, list) or len(value) > most or not all(isinstance(item, dict) for item in value):
            return self._refuse(name, f"a list of at most {most} objects")
        return [Row(item, self.where) for item in value]

    def _value(self, name: str, default: Any = MISSING) -> Any:
        value = self.values.get(name, default)
        if value is MISSING:
            raise InvalidInput(f"{self.where}: {name} is missing")
        return value

    def _refuse(self, name: str, allowed: str) -> Any:
        raise InvalidInput(f"{self.where}: {name}={_shown(self.values.get(name))} is not allowed: it must be {allowed}")


def lines_of(path: Path) -> Iterator[Row]:
    """Yield the object of each line of `path`; nothing if there is no such file. A last line without its end is left out.

    Raises `InvalidInput` for a file or a line that is too long, and for a line that is no JSON object.
    """
    if not path.is_file():
        return
    with input_folder(path.parent), path.open("rb") as stream:
        number, total = 0, 0
        while line := stream.readline(MOST_LINE_BYTES + 1):
            number, total, where = number + 1, total + len(line), f"{path}, line {number + 1}"
            if len(line) > MOST_LINE_BYTES:
                raise InvalidInput(f"{where}: it has more than the {MOST_LINE_BYTES} bytes that a line may have")
            if total > MOST_BYTES:
                raise InvalidInput(f"{where}: the file has more than the {MOST_BYTES} bytes that are read")
            if not line.endswith(b"\n"):
                return  # cut off by a kill, or being written
            yield Row(_object(line, where), where)


def _object(line: bytes, where: str) -> dict[str, Any]:
    try:
        value = json.loads(line.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{where}: it is no JSON ({_one_line(error)})") from error
    if not isinstance(value, dict):
        raise InvalidInput(f"{where}: it is no JSON object")
    return value


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return math.isfinite(value) if isinstance(value, float) else abs(value) <= MOST_COUNT


def _number(value: Any) -> float:
    return float(value)


def writable(text: str) -> str:
    """Return `text` with U+FFFD in place of half surrogate pairs."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _shown(value: Any) -> str:
    """The start of a value, in ASCII: nothing in it reaches a terminal as more than letters."""
    kind = type(value).__name__
    return (
        ascii(value[:SHOWN])
        if isinstance(value, str)
        else kind
        if isinstance(value, (list, dict))
        else ascii(value)[:SHOWN]
    )


def _one_line(error: BaseException) -> str:
    return ascii(" ".join(str(error).split())[:200])[1:-1]
