"""The fingerprint: a literal digest, independence of order, and every value that must not get in."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from r1_lightning.artefacts.fingerprint import fingerprint
from r1_lightning.types.errors import InvalidInput


def test_is_the_sha256_of_canonical_json() -> None:
    # keys sorted at every depth, no spaces, the float in its shortest exact form, non-ASCII escaped
    text = '{"a":[1,2.5,null,true],"b":{"c":"\\u4e8c","d":1e-07}}'
    payload = {"b": {"d": 1e-7, "c": "二"}, "a": [1, 2.5, None, True]}
    assert fingerprint(payload) == hashlib.sha256(text.encode()).hexdigest()


def test_neighbouring_values_differ() -> None:
    digests = {fingerprint({"x": x}) for x in (1, 1.0, True, "1", None, [1], 0.1, 0.1 + 2**-56, {}, [])}
    assert len(digests) == 10  # 0.1 + 2**-56 is the next double after 0.1


@pytest.mark.parametrize(
    ("payload", "named"),
    [
        ({"a": {"b": Path("x")}}, "a.b="),
        ({"a": [0, {1, 2}]}, r"a\[1\]="),
        ({"a": float("nan")}, "a=nan"),
        ({"a": float("inf")}, "a=inf"),
        ({"a": {1: 2}}, "key 1"),
        ({"a": (1, 2)}, "a="),
    ],
)
def test_rejects_what_json_cannot_hold_exactly(payload: dict, named: str) -> None:
    with pytest.raises(InvalidInput, match=named):
        fingerprint(payload)
