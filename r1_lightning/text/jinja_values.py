"""How large a value of a chat template may be, and which filters and attributes it may use.

A template (`text/jinja_sandbox.py`) is hostile input: it can put a list twice into the next one, forty times over, so that a few
hundred bytes of memory have 2^40 parts once they are written or compared. So a value is measured when it is made, each part as
often as it stands in it: `size_of` walks level by level, and stops at the limit.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

from jinja2 import TemplateError, Undefined
from jinja2.utils import Namespace

MAX_TEXT_CHARS = 4_000_000  # of one rendered conversation: a million tokens
MAX_PARTS = 200_000  # of one value, parts of parts counted
MAX_DEPTH = 50
MAX_BITS = 4096  # of an integer
_MAX_SOUGHT = 100  # characters that are sought from the end or stripped: that takes the product of both lengths
TOO_LONG = f"it writes more than {MAX_TEXT_CHARS} characters"
_CONTAINERS: tuple[type[Collection[Any]], ...] = (
    list,
    tuple,
    dict,
    type({}.keys()),
    type({}.values()),
    type({}.items()),
)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


OWN_TEXT = _words("string upper lower title capitalize trim safe escape e forceescape wordcount")
FILTERS = OWN_TEXT | _words(
    "abs attr count d default dictsort first float groupby int items join last length list map max min reject rejectattr "
    "replace reverse round select selectattr sort sum tojson unique"
)
ATTRIBUTES = _words(
    "split rsplit splitlines partition rpartition strip lstrip rstrip startswith endswith removeprefix removesuffix upper lower "
    "title capitalize casefold swapcase replace join find rfind index rindex count isalnum isalpha isascii isdecimal isdigit "
    "isidentifier islower isnumeric isprintable isspace istitle isupper items get keys values"
)
SOUGHT = frozenset({"strip", "lstrip", "rstrip", "rsplit", "rfind", "rindex", "rpartition"})


class TooMuch(TemplateError):
    """A limit was passed."""


def size_of(value: Any, written: bool) -> int:
    """Return the characters and parts of a value. Raises TooMuch if they are too many, or a part of what is written has no text."""
    characters, parts, level = 0, 0, [value]
    for _ in range(MAX_DEPTH):
        inner: list[Any] = []
        for item in level:
            if isinstance(item, str):
                characters += len(item)
            elif isinstance(item, int):
                characters += item.bit_length() // 3
                if item.bit_length() > MAX_BITS:
                    raise TooMuch(f"it makes an integer of more than {MAX_BITS} bits")
            elif isinstance(item, _CONTAINERS):
                parts += len(item)
                if parts > MAX_PARTS:
                    break
                inner.extend(item)
                inner.extend(item.values() if isinstance(item, dict) else ())
            elif written and not isinstance(item, (float, range, Undefined, Namespace, type(None))):
                raise TooMuch(f"it writes a value of the type {type(item).__name__}, which is not allowed")
        if characters > MAX_TEXT_CHARS:
            raise TooMuch(TOO_LONG)
        if parts > MAX_PARTS:
            raise TooMuch(f"it makes a value of more than {MAX_PARTS} parts")
        if not inner:
            return characters + parts
        level = inner
    raise TooMuch(f"it makes a value of more than {MAX_DEPTH} levels")


def check_sought(value: Any) -> None:
    """Raise TooMuch for a long text that is sought from the end or stripped."""
    if isinstance(value, str) and len(value) > _MAX_SOUGHT:
        raise TooMuch(f"it strips or seeks more than {_MAX_SOUGHT} characters")


def rounded(value: float, precision: int = 0, method: str = "common") -> float:
    """Return Jinja's `round`. Raises TooMuch for precisions whose power of ten fills the memory."""
    if abs(precision) > 100 or method != "common":
        raise TooMuch("it rounds to more than 100 digits or by a method, which is not allowed")
    return float(round(value, precision))


def to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, **options: Any) -> str:
    """Return the `tojson` of transformers: plain JSON. Raises TooMuch for long separators."""
    kept = {name: options[name] for name in ("separators", "sort_keys") if name in options}
    if sum(map(len, kept.get("separators") or ())) > 8:
        raise TooMuch("it gives tojson separators of more than 8 characters")
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=min(indent or 0, 8) or None, **kept)


class Items:
    """What a loop or a filter runs over, with a look at the clock before each item."""

    def __init__(self, values: Iterable[Any], on_time: Callable[[], None]) -> None:
        self.values, self.on_time = values, on_time

    def __iter__(self) -> Iterator[Any]:
        for value in self.values:
            self.on_time()
            yield value

    def __len__(self) -> int:
        return len(self.values)  # type: ignore[arg-type]  # a TypeError tells Jinja to count


class PlainNamespace(Namespace):
    """Jinja's `namespace` with a constant text, not that of what it holds, which may be itself."""

    def __repr__(self) -> str:
        return "<namespace>"
