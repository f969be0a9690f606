"""Which plain values fit an annotation, and annotations in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from r1_lightning.run.config.hints import accepts, describe
from tests.run.fakes import FakeModel

ACCEPTED = [
    (1, int),
    (1, float),
    (1.5, float),
    ("a", str),
    (True, bool),
    (None, int | None),
    (3, int | None),
    ("x", Path),
    ("a", Literal["a", "b"]),
    ([1, 2], list[int]),
    ([1, 2.5], tuple[float, ...]),
    ([0.9, 0.9], tuple[float, float]),
    ([], Sequence[int]),
    ({"a": 1}, Mapping[str, int]),
    ({"a": 1}, dict),
    ([1], list),
    ("anything", Any),
    (3, object),
    ({"_target_": "x.Y"}, FakeModel),
    (4, Annotated[int, "width"]),
    (0.1, "a forward reference"),
    (1, float | FakeModel),
]
REFUSED = [
    (True, int),
    (True, float),
    (1.0, int),
    ("1", int),
    ("1", float),
    (1, str),
    (1, bool),
    ("true", bool),
    (None, int),
    ("a", int | None),
    (3, Path),
    ("c", Literal["a", "b"]),
    (["a"], list[int]),
    ("ab", Sequence[str]),
    (3, list[int]),
    ([1], Mapping[str, int]),
    (1, list),
    ("abc", FakeModel),
    (2.5, Annotated[int, "width"]),
    ("abc", float | FakeModel),
    ("abc", Callable),
    (3, dict),
]


@pytest.mark.parametrize(("value", "hint"), ACCEPTED, ids=str)
def test_accepts(value: object, hint: object) -> None:
    assert accepts(value, hint)


@pytest.mark.parametrize(("value", "hint"), REFUSED, ids=str)
def test_refuses(value: object, hint: object) -> None:
    assert not accepts(value, hint)


def test_describe_speaks_plainly() -> None:
    assert describe(int | None) == "a whole number or null"
    assert describe(Literal["a", 2]) == "one of a, 2"
    assert describe(list[float]) == "a list of a number"
    assert describe(float | int | float) == "a number or a whole number"
