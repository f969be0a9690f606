"""The last box of a text: braces balanced, unclosed is none, and a long one costs nothing."""

from __future__ import annotations

import pytest

from r1_lightning.text.boxed import MAX_BOX_CHARS, last_boxed


@pytest.mark.parametrize(
    ("text", "body"),
    [
        ("so \\boxed{5}.", "5"),
        ("\\boxed{5} or \\boxed{ 6 }", " 6 "),
        ("\\boxed{\\frac{1}{2}} }", "\\frac{1}{2}"),
        ("\\boxed{}", ""),
        ("\\boxed{5} or \\boxed{6", None),  # the last one counts, and is not closed
        ("\\boxed 5", None),
        ("5", None),
    ],
)
def test_last_boxed(text: str, body: str | None) -> None:
    assert last_boxed(text) == body


def test_a_box_that_is_too_long_is_none() -> None:
    assert last_boxed("\\boxed{" + "1" * MAX_BOX_CHARS + "}") == "1" * MAX_BOX_CHARS
    assert last_boxed("\\boxed{" + "1" * (MAX_BOX_CHARS + 1) + "}") is None
