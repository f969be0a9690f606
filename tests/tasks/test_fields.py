"""One row, and what it refuses."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from r1_lightning import tasks
from r1_lightning.tasks.fields import Row, is_unicode, question_id
from r1_lightning.text.answers import MAX_ANSWER_CHARS
from r1_lightning.types.errors import InvalidInput

ROW = Row(
    {"text": " a ", "n": 7, "f": 1.5, "list": ["x", "y"], "inner": {"k": "v"}, "none": None, "no": ""}, "file, line 3"
)

REFUSED = {
    "missing": (lambda row: row.text("gone"), "file, line 3: the field 'gone' is missing"),
    "type": (lambda row: row.text("n"), "file, line 3: n=7 is not allowed: it must be a non-empty string"),
    "null": (lambda row: row.text("none"), "none=None is not allowed"),
    "blank": (lambda row: Row({"a": " \n"}, "w").text("a"), "w: a=' .n' is not allowed"),
    "surrogate": (lambda row: Row({"a": "\ud800"}, "w").text("a"), "valid Unicode"),
    "optional of another type": (lambda row: row.optional_text("n"), "n=7 is not allowed"),
    "answer that is a list": (lambda row: row.answer("list"), "list=.* non-empty string"),
    "answer that is a truth value": (lambda row: Row({"a": True}, "w").answer("a"), "a=True"),
    "answer that is infinite": (lambda row: Row({"a": float("inf")}, "w").answer("a"), "a=inf"),
    "long answer": (lambda row: Row({"a": "x" * 1001}, "w").answer("a"), "1 to 1000 characters"),
    "parse_int: a fraction": (
        lambda row: row.parse_int("f", 0, 9),
        "f=1.5 is not allowed: it must be a whole number from 0 to 9",
    ),
    "parse_int: too large": (lambda row: row.parse_int("n", 0, 6), "n=7"),
    "parse_int: words": (lambda row: row.parse_int("text", 0, 6), "text=' a '"),
    "parse_int: truth value": (lambda row: Row({"a": True}, "w").parse_int("a", 0, 6), "a=True"),
    "list of others": (lambda row: Row({"a": ["x", 1]}, "w").texts("a"), "w: a=1"),
    "no list": (lambda row: row.texts("text"), "it must be a list of strings"),
    "no object": (lambda row: row.inner("text"), "it must be an object with fields"),
    "null for an object": (lambda row: row.optional_object("none"), "none=None is not allowed: it must be an object"),
    "object with bytes": (lambda row: Row({"a": {"b": b"x"}}, "w").optional_object("a"), "nothing that JSON does not"),
    "inside": (lambda row: row.inner("inner").text("z"), "file, line 3, inner: the field 'z' is missing"),
}


@pytest.mark.parametrize(("look", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_names_place_field_and_value(look, message):
    with pytest.raises(InvalidInput, match=message) as error:
        look(ROW)
    assert "\n" not in str(error.value) and len(str(error.value)) < 200


def test_what_is_accepted():
    assert ROW.text("text") == " a "
    assert ROW.optional_text("gone") == ROW.optional_text("none") == ROW.optional_text("no") == ""
    assert (ROW.answer("text"), ROW.answer("n"), ROW.answer("f")) == ("a", "7", "1.5")
    assert Row({"a": "x" * MAX_ANSWER_CHARS}, "w").answer("a") == "x" * 1000
    assert [Row({"a": value}, "w").parse_int("a", 0, 999) for value in (42, "042", "42.0", " 42 ")] == [42] * 4
    assert ROW.texts("list") == ["x", "y"] and ROW.inner("inner").text("k") == "v"
    assert ROW.optional_object("inner") == {"k": "v"} and ROW.optional_object("gone") == {}


def test_ids_forget_case_and_spacing_and_nothing_else():
    assert question_id("a", " How  MANY?\n") == question_id("a", "how many?")
    assert len({question_id("a", "how many?"), question_id("b", "how many?"), question_id("a", "how much?")}) == 3
    assert question_id("a", "x", "y") != question_id("a", "x y")
    assert question_id("gsm8k", "q") == "gsm8k-8e35c2cd3bf6641b"  # sha256("q") begins 8e35c2cd3bf6641b


def test_half_a_pair_is_no_unicode():
    assert is_unicode("\U0001f600 芳") and not is_unicode("x\udc00")


def test_a_row_names_a_language_of_ours_or_none() -> None:
    assert [Row(row, "r").language() for row in ({}, {"language": None}, {"language": ""}, {"language": "zh"})] == [
        None,
        None,
        None,
        "zh",
    ]
    with pytest.raises(InvalidInput, match="r: language='fr' is not allowed: it must be one of en, zh, or left out"):
        Row({"language": "fr"}, "r").language()


def test_every_source_says_the_language_of_its_problems() -> None:
    """`Problem(question, answer, id, language, ...)`: left out, a Chinese question would be rewarded for English thinking."""
    silent = []
    for path in sorted(Path(tasks.__file__).parent.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Problem":
                says = len(node.args) > 3 or any(keyword.arg == "language" for keyword in node.keywords)
                silent += [] if says else [f"{path.name}:{node.lineno}"]
    assert silent == []


@pytest.mark.parametrize("value", [3, 3.0, "3", "3.0", " 3 ", "+3"])
def test_a_whole_number_is_one_in_every_column_s_type(value: object) -> None:
    """A column with a null in it holds floats, and CSV holds text."""
    assert Row({"level": value}, "x").parse_int("level", 1, 5) == 3


@pytest.mark.parametrize("value", [1.5, float("nan"), float("inf"), 6.0, 0.0, True, None, "3.5", [3.0], "three"])
def test_what_is_no_whole_number_is_refused(value: object) -> None:
    with pytest.raises(InvalidInput, match="it must be a whole number from 1 to 5"):
        Row({"level": value}, "x").parse_int("level", 1, 5)
