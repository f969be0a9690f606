"""Which language a text is in, and whether it mixes two: English and Chinese, as in DeepSeek-R1.

Training with R1-Zero's rewards alone makes a model mix languages in its thinking; R1 answers with a reward for the
share of words in the target language, Num(Words_target) / Num(Words) (arXiv:2501.12948, equation 7). The paper does not
say how words are counted, so these are our choices:

- an English word is a run of two or more Latin letters, inner apostrophes included; a Chinese word is one Han character
  (cutting Chinese into words needs a dictionary, and the share hardly changes);
- neutral, in no language: digits, operators, punctuation, single Latin letters (variables, options), names of LaTeX
  commands, and the R1 tags;
- a run of letters of another script counts as a word, of neither language.
"""

from __future__ import annotations

import re

from r1_lightning.text.reasoning_format import TAGS
from r1_lightning.types.errors import require_choice, require_number
from r1_lightning.types.text import Language

LANGUAGES: tuple[Language, ...] = ("en", "zh")

_LATIN = r"[A-Za-z\u00C0-\u00D6\u00D8-\u00F6\u00F8-\u024F]"
HAN = r"[\u3005\u3007\u3400-\u4DBF\u4E00-\u9FFF\uF900-\uFAFF\U00020000-\U000323AF]"
_WORDS = re.compile(
    rf"(?P<neutral>{'|'.join(map(re.escape, TAGS))}|\\[A-Za-z]+)"
    rf"|(?P<zh>{HAN})"
    rf"|(?P<en>{_LATIN}+(?:['’]{_LATIN}+)*)"
    rf"|(?P<other>(?:(?!{_LATIN}|{HAN})[^\W\d_])+)"
)


def count_words(text: str) -> dict[str, int]:
    """The number of words of `text` that are "en", "zh" and "other", by the rules above."""
    counts = {"en": 0, "zh": 0, "other": 0}
    for match in _WORDS.finditer(text):
        kind = match.lastgroup
        if kind in counts and not (kind == "en" and len(match.group()) == 1):
            counts[kind] += 1
    return counts


def language_of(text: str) -> Language | None:
    """The language with more words in `text`, English if both have as many; None if neither has any."""
    counts = count_words(text)
    if counts["en"] == counts["zh"] == 0:
        return None
    return "zh" if counts["zh"] > counts["en"] else "en"


def language_share(text: str, target: Language) -> float:
    """Words of `target` divided by all words, in 0..1.

    A text without words, pure calculation, is in no wrong language: 1.0.
    """
    require_choice("target", target, LANGUAGES)
    counts = count_words(text)
    total = sum(counts.values())
    return counts[target] / total if total else 1.0


def is_mixed(text: str, tolerance: float = 0.0) -> bool:
    """True if more than the share `tolerance` of the words is outside the main language; by default one is enough."""
    require_number("tolerance", tolerance, 0.0, 1.0)
    counts = count_words(text)
    total = sum(counts.values())
    return total - max(counts.values()) > tolerance * total
