"""Values between a script and an answer: data survives unchanged, and anything else is refused."""

from __future__ import annotations

from collections import Counter, OrderedDict, namedtuple
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1_lightning.rewards.sandbox.transfer import dump, load

KEYS = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.binary(max_size=5)
DATA = st.recursive(
    KEYS | st.floats(allow_nan=False) | st.complex_numbers(allow_nan=False),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.sets(KEYS, max_size=3)
        | st.frozensets(KEYS, max_size=3)
        | st.dictionaries(KEYS | st.tuples(KEYS), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(DATA)
def test_data_comes_out_as_it_went_in(value: Any) -> None:
    line = dump(value)
    assert load(line) == value and repr(type(load(line))) == repr(type(value))
    assert "\n" not in line and line.isascii()


def test_literal_lines() -> None:
    assert dump((1, [2.5, "é"], None)) == '{"tuple": [1, [2.5, "\\u00e9"], null]}'
    assert dump({(1, 2): {3}}) == '{"dict": [[{"tuple": [1, 2]}, {"set": [3]}]]}'
    assert load('{"dict": [[1, true], [{"bytes": "00ff"}, {"complex": [1.0, -2.0]}]]}') == {1: True, b"\0\xff": 1 - 2j}


def test_subclasses_pass_as_what_they_extend() -> None:
    pair = namedtuple("pair", "a b")(1, 2)
    for value, plain in ((Counter("aab"), {"a": 2, "b": 1}), (OrderedDict(x=1), {"x": 1}), (pair, (1, 2))):
        assert load(dump(value)) == plain and type(load(dump(value))) is type(plain)


@pytest.mark.parametrize("value", [object(), dump, int, iter([]), range(3), [object()], {"a": {1: object()}}])
def test_what_is_no_data_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="is not data"):
        dump(value)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "{",
        '{"object": 1}',
        '{"dict": 1}',
        '{"dict": [[1]]}',
        "{}",
        '{"a": 1, "b": 2}',
        '{"set": [[1]]}',
        '{"bytes": "x"}',
    ],
)
def test_what_dump_never_writes_is_refused(line: str) -> None:
    with pytest.raises((ValueError, TypeError)):
        load(line)


def test_numbers_of_numpy_pass_as_numbers_and_arrays_do_not() -> None:
    given = [
        np.int64(5),
        np.float32(0.5),
        np.bool_(True),
        np.uint8(255),
        np.complex64(1j),
        np.float64(0.1),
        np.str_("a"),
    ]
    came = load(dump(given))
    assert came == [5, 0.5, True, 255, 1j, 0.1, "a"]
    assert [type(value) for value in came] == [int, float, bool, int, complex, float, str]
    for value in (np.zeros(2), np.datetime64("2020-01-01"), np.dtype(int), np):
        with pytest.raises(TypeError, match="is not data"):
            dump([value])
