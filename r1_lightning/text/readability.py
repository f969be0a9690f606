"""The readability filters of DeepSeek-R1's rejection sampling, each with a name and a threshold.

R1 keeps those correct samples that a person can read: "we have filtered out chain-of-thought with mixed languages, long
paragraphs, and code blocks" (arXiv:2501.12948v1, section 2.3.3; v2, B.3), and for its cold start those that do not repeat
themselves. The paper gives no thresholds; our rules:

- *mixed languages*: more than a share of the words is outside the main language (`text.language`);
- *endless paragraph*: more characters than allowed without an empty line; fenced code is no paragraph;
- *stray code*: a code fence anywhere but in the answer to a question that asks for code;
- *repeats itself*: too large a share of the 8-grams of words (or Chinese characters) occurred earlier in the same response.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from r1_lightning.text.language import is_mixed
from r1_lightning.text.ngrams import ngrams, units, without_tags
from r1_lightning.text.response_parts import final_summary
from r1_lightning.types.errors import require_int, require_number

MIXED_LANGUAGES = "mixed languages"
ENDLESS_PARAGRAPH = "endless paragraph"
STRAY_CODE = "stray code"
REPEATS_ITSELF = "repeats itself"
FAULTS = (MIXED_LANGUAGES, ENDLESS_PARAGRAPH, STRAY_CODE, REPEATS_ITSELF)

REPEATED_RUN = 8  # units; shorter runs recur in normal text ("the sum of the first two")

_FENCE = re.compile(r"^[ \t]*(?:```|~~~)", re.MULTILINE)
_FENCED = re.compile(r"^[ \t]*(```|~~~).*?(?:^[ \t]*\1[^\n]*$|\Z)", re.MULTILINE | re.DOTALL)
_BREAK = re.compile(r"\n[^\S\n]*\n")


@dataclass(frozen=True)
class Readability:
    """The threshold of each fault.

    `mixed_tolerance` and `max_repeated_share` are the largest allowed shares, 0..1; `max_paragraph_chars` is in characters.
    """

    mixed_tolerance: float = 0.01
    max_paragraph_chars: int = 2_000
    max_repeated_share: float = 0.2

    def __post_init__(self) -> None:
        require_number("mixed_tolerance", self.mixed_tolerance, 0.0, 1.0)
        require_int("max_paragraph_chars", self.max_paragraph_chars, 1)
        require_number("max_repeated_share", self.max_repeated_share, 0.0, 1.0)

    def fault(self, text: str, asks_for_code: bool = False) -> str | None:
        """Return the first of `FAULTS` that `text` has, or None; with `asks_for_code` its final part may contain code."""
        if is_mixed(spoken(text, asks_for_code), self.mixed_tolerance):
            return MIXED_LANGUAGES
        if longest_paragraph(text) > self.max_paragraph_chars:
            return ENDLESS_PARAGRAPH
        if has_stray_code(text, asks_for_code):
            return STRAY_CODE
        if repeated_share(text) > self.max_repeated_share:
            return REPEATS_ITSELF
        return None


def spoken(text: str, asks_for_code: bool = False) -> str:
    """Return the natural-language part of `text`: its prose, without the final part if that is to be code."""
    return prose(_before_answer(text) if asks_for_code else text)


def prose(text: str) -> str:
    """Return `text` without fenced code, because names in a program are in no language."""
    return _FENCED.sub("\n\n", text)


def longest_paragraph(text: str) -> int:
    """Count the characters of the longest run of prose without an empty line; tags and outer white space do not count."""
    return max(len(paragraph.strip()) for paragraph in _BREAK.split(without_tags(prose(text))))


def has_stray_code(text: str, asks_for_code: bool = False) -> bool:
    """True if there is a code fence, closed or not, anywhere but in the final part of an answer that is to be code."""
    return _FENCE.search(_before_answer(text) if asks_for_code else text) is not None


def _before_answer(text: str) -> str:
    summary = final_summary(text)
    return text if summary is None else text[: text.rindex(summary)]


def repeated_share(text: str, n: int = REPEATED_RUN) -> float:
    """Return the share of n-grams that occurred earlier, 0..1; 0 if there are none."""
    runs = list(ngrams(units(text), n))
    return 1 - len(set(runs)) / len(runs) if runs else 0.0
