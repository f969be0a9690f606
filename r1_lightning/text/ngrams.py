"""A text as a sequence of units, and its runs of n of them: what repetition and contamination are counted in.

A unit is a word (a run of letters and digits) or, in Chinese, one character, as in `text.language`. Case, full-width forms,
punctuation and the R1 tags do not count, so that `Compute（３）+ 4.` and `compute (3) + 4` are the same units.
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
    """`text` with a space in place of every R1 tag."""
    return _TAG.sub(" ", text)


def units(text: str) -> list[str]:
    """The units of `text`, in order."""
    return _UNIT.findall(unicodedata.normalize("NFKC", without_tags(text)).casefold())


def ngrams(sequence: Sequence[str], n: int) -> Iterator[tuple[str, ...]]:
    """Every run of `n` units; none where there are fewer."""
    return (tuple(sequence[start : start + n]) for start in range(len(sequence) - n + 1))
