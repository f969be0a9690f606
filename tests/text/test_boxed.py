"""The last box of a text: balanced braces, unclosed boxes do not count, and long ones cost no time."""

from __future__ import annotations

import pytest

from r1_lightning.text.boxed import MAX_BOX_CHARS, boxed_answer, last_boxed


@pytest.mark.parametrize(
    ("text", "body"),
    [
        ("so \\boxed{5}.", "5"),
        ("\\boxed{5} or \\boxed{ 6 }", " 6 "),
        ("\\boxed{\\frac{1}{2}} }", "\\frac{1}{2}"),
        ("\\boxed{}", ""),
        ("\\boxed{5} or \\boxed{6", None),  # the last one counts, and is not closed
        ("\\boxed 5", None),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),  # shown braces close nothing
        (r"\boxed{\left\{ x \right.}", r"\left\{ x \right."),
        (r"\boxed{1 \\}", r"1 \\"),  # a new line, and then the brace
        ("5", None),
    ],
)
def test_last_boxed(text: str, body: str | None) -> None:
    assert last_boxed(text) == body


def test_a_box_of_several_thousand_characters_is_one() -> None:
    for body in ("4 " * 900, "{" * 4_000 + "}" * 4_000, "Move disk 1 from Peg 2 to Peg 3\n" * 127):
        assert last_boxed("\\boxed{" + body + "}.") == body


def test_a_box_that_is_too_long_is_none() -> None:
    assert last_boxed("\\boxed{" + "1" * MAX_BOX_CHARS + "}") == "1" * MAX_BOX_CHARS
    assert last_boxed("\\boxed{" + "1" * (MAX_BOX_CHARS + 1) + "}") is None


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{5}", "5"),
        (r"\boxed{1} then \boxed{ 2 }.", "2"),
        (r"\boxed{\frac{1}{\sqrt{2}}}", r"\frac{1}{\sqrt{2}}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),  # shown braces close nothing
        (r"\boxed{\left\{ x \right.}", r"\left\{ x \right."),
        (r"so $\boxed 5$, done", "5"),
        (r"\fbox{7}", "7"),
        (r"\boxed {8}", "8"),
        (r"\boxed{5", None),
        (r"\boxed{}", None),
        ("no box", None),
        (r"\boxed{1 \\}", r"1 \\"),  # a new line, and then the brace
        (r"\boxed{1} and \boxed{", None),
    ],
)
def test_boxes_of_published_solutions(text: str, answer: str | None) -> None:
    assert boxed_answer(text) == answer
