"""The string of a pickle is read; anything that could run, or is more than a string, is refused."""

from __future__ import annotations

import base64
import os
import pickle
import zlib

import pytest

from r1_lightning.tasks.pickled_text import packed_text, pickled_text


def packed(content: bytes) -> str:
    return base64.b64encode(zlib.compress(content)).decode()


@pytest.mark.parametrize("protocol", range(1, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "text", ["", "a", "芳 \U0001f600\n", "x" * 300, "y" * 70_000], ids=["empty", "a", "zh", "300", "70k"]
)
def test_a_string_of_every_protocol(text: str, protocol: int) -> None:
    assert packed_text(packed(pickle.dumps(text, protocol=protocol))) == text


class Program:
    """Unpickled, it would make a folder."""

    def __reduce__(self):
        return os.mkdir, ("made-by-a-pickle",)


REFUSED = {
    "a program": (pickle.dumps(Program()), "holds more than a string"),
    "a list of strings": (pickle.dumps(["a"]), "holds more than a string"),
    "a number": (pickle.dumps(5), "holds more than a string"),
    "bytes": (pickle.dumps(b"a"), "holds more than a string"),
    "text of protocol 0": (pickle.dumps("a", protocol=0), "holds more than a string"),
    "two strings": (b"\x80\x04\x8c\x01a\x8c\x01b.", "exactly one string"),
    "nothing": (b"\x80\x04.", "exactly one string"),
    "more behind the end": (pickle.dumps("a") + b"x", "exactly one string"),
    "no end": (pickle.dumps("a")[:-1], "pickle exhausted"),
    "cut": (b"\x80\x04\x8c\x09a", "expected 9 bytes"),
    "no opcode": (b"\xff", "unknown"),
    "bad UTF-8": (b"\x80\x04\x8c\x01\xff.", "not valid Unicode"),
}


@pytest.mark.parametrize(("content", "message"), REFUSED.values(), ids=REFUSED)
def test_anything_else_is_refused_and_nothing_is_run(tmp_path, monkeypatch, content: bytes, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        pickled_text(content)
    assert list(tmp_path.iterdir()) == []


def test_the_program_would_have_run(tmp_path, monkeypatch) -> None:
    """Otherwise the test above would pass for any reader."""
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps(Program()))
    assert [path.name for path in tmp_path.iterdir()] == ["made-by-a-pickle"]


def test_broken_archives_are_refused() -> None:
    good = packed(pickle.dumps("a" * 10_000))
    for text, message in (
        ("%%%", "not base64"),
        ("芳", "not base64"),
        (base64.b64encode(b"no archive").decode(), "not a zlib archive"),
        (base64.b64encode(zlib.compress(b"a" * 99)[:-6]).decode(), "cut off"),
        (base64.b64encode(zlib.compress(b"a") + b"x").decode(), "more behind it"),
    ):
        with pytest.raises(ValueError, match=message):
            packed_text(text)
    with pytest.raises(ValueError, match="unpacks to more than 9999 bytes"):
        packed_text(good, max_bytes=9999)
