"""Splits a text into units and n-grams of units, to measure repetition and contamination.

A unit is a word (a run of letters and digits) or, in Chinese, one character, as in `text.language`. Case, full-width forms,
punctuation and the R1 tags are ignored, so that `Compute（３）+ 4.` and `compute (3) + 4` have the same units.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence

from r1_lightning.text.language import HAN
from r1_lightning.text.reasoning_format import TAGS

_TAG = re.compile("|".join(map(re.escape, TAGS)))
_UNIT = re.compile(rf"{HAN}|(?:(?!{HAN})[^\W_])+")


def without_tags(text: str) -> str:
    """Replace every R1 tag in `text` by a space."""
    return _TAG.sub(" ", text)


def units(text: str) -> list[str]:
    """Return the units of `text` in order."""
    return _UNIT.findall(unicodedata.normalize("NFKC", without_tags(text)).casefold())


def ngrams(sequence: Sequence[str], n: int) -> Iterator[tuple[str, ...]]:
    """Yield every run of `n` units; none if there are fewer than `n`."""
    return (tuple(sequence[start : start + n]) for start in range(len(sequence) - n + 1))
