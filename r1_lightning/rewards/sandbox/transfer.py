"""Encodes Python values as lines of text that pass between a test script and the answer it tests.

Only data can pass: None, booleans, numbers, text, bytes, lists, tuples, sets and dictionaries of these. The format is JSON with
one addition, because scripts distinguish (1, 2) from [1, 2]: a value of a type that JSON lacks is an object whose only key is the
type's name. Neither code nor an object that equals everything can pass. Subclasses pass as their base type (a Counter as a dict),
NumPy's numbers as plain numbers.

Standard library only: this runs inside the sandbox.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

_SEQUENCES: dict[str, Callable[[list[Any]], Any]] = {"tuple": tuple, "set": set, "frozenset": frozenset}


def dump(value: Any) -> str:
    """Encode `value` as one line of ASCII. `TypeError` for anything that is not data."""
    return json.dumps(_packed(value))


def load(line: str | bytes) -> Any:
    """Decode a line of `dump`. `ValueError` or `TypeError` for anything else; nothing is ever executed."""
    return _unpacked(json.loads(line))


def _packed(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, list):
        return [_packed(item) for item in value]
    if isinstance(value, dict):
        return {"dict": [[_packed(key), _packed(item)] for key, item in value.items()]}
    if isinstance(value, (bytes, bytearray)):
        return {"bytes": value.hex()}
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    for name, kind in (("tuple", tuple), ("set", set), ("frozenset", frozenset)):
        if isinstance(value, kind):
            return {name: [_packed(item) for item in value]}
    return _packed(plain(value))


def plain(value: Any) -> Any:
    """Convert a NumPy number to a plain number; `TypeError` for anything else."""
    if type(value).__module__ == "numpy" and getattr(value, "shape", None) == ():
        number = value.item()
        if isinstance(number, (bool, int, float, complex, str, bytes)):
            return number
    raise TypeError(f"a value of type {type(value).__name__} is not data")


def _unpacked(value: Any) -> Any:
    if isinstance(value, list):
        return [_unpacked(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) != 1:
        raise ValueError("an object must have one key, the name of a type")
    ((name, content),) = value.items()
    if name == "dict":
        return {_unpacked(key): _unpacked(item) for key, item in content}
    if name == "bytes":
        return bytes.fromhex(content)
    if name == "complex":
        return complex(*content)
    if name in _SEQUENCES:
        return _SEQUENCES[name](_unpacked(content))
    raise ValueError(f"unknown type {name[:40]!r}")
