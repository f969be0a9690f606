"""Text that a model wrote, as inert HTML and JSON.

A completion may hold `</script>`, marks that turn the direction of the text around them (bidirectional overrides), NUL, half of a
surrogate pair, or invisible characters. In HTML from here the five characters of markup are escaped, and each character that shows
nothing or moves other text is shown by its number, `U+202E`, in a `<b>` of its own. JSON from here holds no `<`, `>`
or `&`: nothing in it ends the element around it.
"""

from __future__ import annotations

import html
import json
import re
from functools import lru_cache
from typing import Any

from r1_lightning.artefacts.files import strict

# Controls but tab and newline, soft hyphen, marks of direction, zero-width spaces, separators of lines, surrogates, tags,
# interlinear annotation, byte order marks and non-characters. Joiners (200C, 200D) stay: scripts and emoji are written with them.
UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    "\ud800-\udfff\ufeff\ufff9-\ufffb\ufffe\uffff\U000e0000-\U000e007f]"
)
MARKUP = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})  # as JSON writes them inside strings
LONGEST_LINE = (
    4_000  # characters: a browser takes seconds for one of a million, and no time for as many that it does not show
)
CACHED_TOKENS = 65_536  # texts of tokens whose length is kept


def inert(text: str) -> str:
    """Return `text` as HTML in which nothing is markup and every character is seen, for between tags or quotes of an attribute.

    >>> inert("a<b> \\u202e")
    'a&lt;b&gt; <b>U+202E</b>'
    """
    return UNSEEN.sub(lambda found: f"<b>{_named(found)}</b>", html.escape(text))


def inert_lines(text: str) -> str:
    """Return `inert(text)`, lines of more than `LONGEST_LINE` characters in pieces that are laid out when they are seen."""
    if len(text) <= LONGEST_LINE:
        return inert(text)
    return "\n".join(inert(line) if len(line) <= LONGEST_LINE else _cut(line) for line in text.split("\n"))


def brief(text: str, most: int) -> str:
    """Return `inert(text)` of a text that should be short: of one that is not, the beginning, and how much is left out."""
    return inert(text) if len(text) <= most else f"{inert(text[:most])} <b>{len(text) - most:,} more characters</b>"


def plain(text: str) -> str:
    """Return `text` as one that a browser shows as it is, for attributes and the title: numbers in place of unseen characters."""
    return html.escape(UNSEEN.sub(_named, text))


@lru_cache(maxsize=CACHED_TOKENS)
def shown_units(text: str) -> int:
    """Return how long `inert(text)` is as a browser counts its text: in UTF-16 units, tags not counted."""
    return len(UNSEEN.sub(_named, text).encode("utf-16-le")) // 2


def json_block(value: Any) -> str:
    """Return `value` as JSON for a `<script type="application/json">`; numbers that are not finite become null."""
    return json.dumps(strict(value), ensure_ascii=True, allow_nan=False, separators=(",", ":")).translate(MARKUP)


def _cut(line: str) -> str:
    pieces = (line[start : start + LONGEST_LINE] for start in range(0, len(line), LONGEST_LINE))
    return "".join(f'<span class="long">{inert(piece)}</span>' for piece in pieces)


def _named(found: re.Match[str]) -> str:
    return f"U+{ord(found[0]):04X}"
