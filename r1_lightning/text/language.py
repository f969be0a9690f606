"""Detects the language of a text, and whether it mixes two: English and Chinese, as in DeepSeek-R1.

With R1-Zero's rewards alone a model learns to mix languages in its thinking; R1's remedy is a reward for the share of words in
the target language, Num(Words_target) / Num(Words) (arXiv:2501.12948, equation 7). The paper does not say how it counts words;
our rules:

- an English word is a run of two or more Latin letters, inner apostrophes included; a Chinese word is one Han character
  (cutting Chinese into words needs a dictionary, and the share hardly changes);
- neutral, in no language: digits, operators, punctuation, single Latin letters (variables, options), the R1 tags, and all
  mathematics and code that `text.symbols` recognises;
- a run of letters of another script counts as a word of neither language.

A model could hide words in a formula or a program, so each rule has a bound: symbols as long as words count as words.
"""

from __future__ import annotations

import re

from r1_lightning.text.reasoning_format import TAGS
from r1_lightning.text.symbols import is_greek_symbol, is_symbol, without_symbols
from r1_lightning.types.errors import require_choice, require_number
from r1_lightning.types.text import Language

LANGUAGES: tuple[Language, ...] = ("en", "zh")

_LATIN = r"[A-Za-z\u00C0-\u00D6\u00D8-\u00F6\u00F8-\u024F]"
HAN = r"[\u3005\u3007\u3400-\u4DBF\u4E00-\u9FFF\uF900-\uFAFF\U00020000-\U000323AF]"
_GREEK = r"[\u0370-\u03FF\u1F00-\u1FFF]"
_WORDS = re.compile(
    rf"(?P<neutral>{'|'.join(map(re.escape, TAGS))}|\\[A-Za-z]+)"
    rf"|(?P<zh>{HAN})"
    rf"|(?P<en>{_LATIN}+(?:['’]{_LATIN}+)*)"
    rf"|(?P<greek>{_GREEK}+)"
    rf"|(?P<other>(?:(?!{_LATIN}|{HAN}|{_GREEK})[^\W\d_])+)"
)


def count_words(text: str) -> dict[str, int]:
    """Count the words of `text` that are "en", "zh" and "other", by the rules above."""
    counts = {"en": 0, "zh": 0, "other": 0}
    plain = without_symbols(text)
    for match in _WORDS.finditer(plain):
        kind, (start, end) = match.lastgroup, match.span()
        if kind == "en" and (end - start == 1 or is_symbol(plain, start, end)):
            continue
        if kind == "greek":
            kind = "neutral" if is_greek_symbol(match.group()) else "other"
        if kind in counts:
            counts[kind] += 1
    return counts


def language_of(text: str) -> Language | None:
    """Return the language with more words in `text`, English at equal counts; None if there are no words of either."""
    counts = count_words(text)
    if counts["en"] == counts["zh"] == 0:
        return None
    return "zh" if counts["zh"] > counts["en"] else "en"


def question_language(question: str) -> Language:
    """Return the detected language of a question whose row names none; English if it has no words."""
    return language_of(question) or "en"


def language_share(text: str, target: Language) -> float:
    """Return the share of the words in the language `target`, 0..1; 1.0 for a text without words (pure calculation)."""
    require_choice("target", target, LANGUAGES)
    counts = count_words(text)
    total = sum(counts.values())
    return counts[target] / total if total else 1.0


def is_mixed(text: str, tolerance: float = 0.0) -> bool:
    """True if more than the share `tolerance` of the words is outside the main language; by default one word is enough."""
    require_number("tolerance", tolerance, 0.0, 1.0)
    counts = count_words(text)
    total = sum(counts.values())
    return total - max(counts.values()) > tolerance * total
