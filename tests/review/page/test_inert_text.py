"""Text of a model as HTML and JSON: no markup, no unseen character, nothing that ends the element around it."""

from __future__ import annotations

import html
import json
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1_lightning.review.page.inert_text import LONGEST_LINE, brief, inert, inert_lines, json_block, plain, shown_units

TEXTS = st.text(st.characters(), max_size=60) | st.lists(
    st.sampled_from(
        ["<", "</script>", "<!--", "&amp;", '"', "'", "\0", "\r", "\n", "\u202e", "\ud800", "\ufeff", "因", "😀", "a"]
    )
).map("".join)


class _Read(HTMLParser):
    """What a parser finds in HTML: its text, and its tags."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.text, self.tags = "", list[str]()
        self.feed(source)
        self.close()

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag if not attrs else f"{tag} {attrs}")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<script>", "&lt;script&gt;"),
        ("a&b\"c'", "a&amp;b&quot;c&#x27;"),
        ("\u202egnp", "<b>U+202E</b>gnp"),
        ("\0\r\x1b\x7f", "<b>U+0000</b><b>U+000D</b><b>U+001B</b><b>U+007F</b>"),
        ("\ud83d", "<b>U+D83D</b>"),
        ("\U000e0041", "<b>U+E0041</b>"),
        ("tab\tline\nend", "tab\tline\nend"),
        ("因此 😀 👩\u200d🔬", "因此 😀 👩\u200d🔬"),  # a joiner of an emoji stays
    ],
)
def test_what_is_shown(text: str, shown: str) -> None:
    assert inert(text) == shown


@given(TEXTS)
@settings(max_examples=60, deadline=None)
def test_only_marks_are_tags_and_nothing_is_lost(text: str) -> None:
    read = _Read(inert(text))
    assert set(read.tags) <= {"b"}
    assert read.text == html.unescape(plain(text)) and len(read.text.encode("utf-16-le")) == 2 * shown_units(text)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", read.text)


@given(TEXTS)
@settings(max_examples=40, deadline=None)
def test_json_comes_back_and_holds_no_markup(text: str) -> None:
    block = json_block({"a": [text], text: 1.5})
    assert not set(block) & set("<>&\u2028") and block.isascii()
    assert json.loads(block) == {**{"a": [text]}, text: 1.5}


def test_a_text_that_should_be_short() -> None:
    assert brief("<12345>", 7) == "&lt;12345&gt;" and brief("<12345>", 3) == "&lt;12 <b>4 more characters</b>"


def test_json_of_numbers_that_are_none() -> None:
    assert json_block({"a": [float("nan"), float("-inf"), 0.5, (1, None)]}) == '{"a":[null,null,0.5,[1,null]]}'


@pytest.mark.parametrize(
    "text", ["x" * (3 * LONGEST_LINE + 1), "short\n" + "<" * (LONGEST_LINE + 1) + "\nshort", "a\nb"]
)
def test_a_long_line_is_cut_into_elements_and_keeps_its_text(text: str) -> None:
    source = inert_lines(text)
    assert _Read(source).text == text
    pieces = re.findall(r'<span class="long">(.*?)</span>', source)
    assert max([len(html.unescape(piece)) for piece in pieces], default=0) <= LONGEST_LINE
    longest = max(map(len, text.split("\n")))
    assert len(pieces) == (-(-longest // LONGEST_LINE) if longest > LONGEST_LINE else 0)
