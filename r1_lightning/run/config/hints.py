"""Checks plain values from YAML against type annotations, and describes annotations in words for error lines."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

WORDS = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    type(None): "null",
    Path: "a path",
    list: "a list",
    dict: "a mapping",
}


def accepts(value: Any, hint: Any) -> bool:
    """True if a plain value (from YAML) fits an annotation, or if the annotation cannot be checked here."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is None or hint is type(None):
        return value is None
    if origin in (Union, types.UnionType):
        return any(accepts(value, argument) for argument in arguments)
    if origin is Literal:
        return value in arguments
    if isinstance(value, Mapping) and "_target_" in value:
        return True  # checked against its own target
    if origin is typing.Annotated:
        return accepts(value, arguments[0])
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, Mapping)
    if isinstance(origin, type) and issubclass(origin, (Sequence, set, frozenset)):
        inner = [argument for argument in arguments if argument is not ...]
        return isinstance(value, list) and (not inner or all(any(accepts(v, a) for a in inner) for v in value))
    if not isinstance(hint, type):
        return True
    return _accepts_class(value, hint)


def _accepts_class(value: Any, hint: type) -> bool:
    if hint is object:
        return True
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if issubclass(hint, Path):
        return isinstance(value, str)
    if hint in (tuple, Sequence):
        return isinstance(value, list)
    if hint in (str, bool, list, dict):
        return isinstance(value, hint)
    if isinstance(value, (str, bool, int, float)) or value is None:
        return _is_instance(value, hint)
    return True  # a mapping or list for one of our classes: the constructor checks it


def _is_instance(value: Any, hint: type) -> bool:
    try:
        return isinstance(value, hint)
    except TypeError:  # a Protocol that is not runtime-checkable
        return value is not None


def describe(hint: Any) -> str:
    """Return an annotation in words, for an error line."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint in WORDS:
        return WORDS[hint]
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(describe(argument) for argument in arguments))
    if origin is Literal:
        return "one of " + ", ".join(map(str, arguments))
    if isinstance(origin, type) and issubclass(origin, (Sequence, set, frozenset)):
        return f"a list of {describe(arguments[0])}" if arguments else "a list"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "a mapping"
    return getattr(hint, "__name__", str(hint))
