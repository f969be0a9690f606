"""Extracts the answer of a completion, and decides whether two answers are the same.

There are two ways to extract an answer, kept apart everywhere, because their difference tells learning the format from learning to
reason:

- *strict* (`final_answer`): the answer in the place that the completion's format prescribes, by default the single closed answer
  block;
- *lenient* (`lenient_answer`): the answer at the end in any format: the last answer block even if it is not closed, else the last
  `\\boxed{...}`, else the text after the last `####`, else the last number.

Numbers are compared exactly, as fractions of integers: 1,200 = 1200 = 1200.0 = +01200, and 0.5 = 1/2. Nothing is evaluated, and
text of more than 1,000 characters is no answer, so hostile text costs no time. (A reward with longer answers passes its own
limit.)
"""

from __future__ import annotations

import re
from fractions import Fraction

from r1_lightning.text.boxed import last_boxed
from r1_lightning.text.reasoning_format import ANSWER_OPEN, FORMS, R1_ZERO_FORM, TAGS, has_visible_text

MAX_ANSWER_CHARS = 1_000

# Replaces full-width forms in Chinese text, the typographic minus, and the Chinese full stop.
_ASCII_FORMS = str.maketrans("０１２３４５６７８９＋－−．，／。＄", "0123456789+--.,/.$")

_NUMBER = re.compile(r"([+-]?)((?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)?)(?:\.([0-9]*))?(?:/([0-9]+))?")

# A sign belongs to the number only if no operand precedes it: "8-5" ends in 5, "= -5" ends in -5.
_NUMBER_IN_TEXT = re.compile(
    r"(?:(?<![\w).])[+-])?(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?(?:/[0-9]+)?"
)
_ANY_TAG = re.compile("|".join(map(re.escape, TAGS)))
_HASHES = "####"


def final_answer(text: str, form: str = R1_ZERO_FORM, most_chars: int = MAX_ANSWER_CHARS) -> str | None:
    """Return the strict answer, stripped; None if its place is missing, empty, ambiguous, or longer than `most_chars`.

    The `form` (`reasoning_format.FORMS`) decides the place: the only answer block, or in R1's form the summary's last box. A think
    block is not required here; the format reward checks the whole format.
    """
    return _usable(FORMS[form].parse(text).answer, most_chars)


def lenient_answer(text: str) -> str | None:
    """Return the answer at the end of `text` in any of the formats above, or None if there is none."""
    return _last_answer_block(text) or _last_boxed(text) or _after_last_hashes(text) or last_number(text)


def given_answer(text: str, form: str = R1_ZERO_FORM) -> str | None:
    """Return the strict answer, or the lenient one if there is none: what a person would say the completion answered."""
    given = final_answer(text, form)
    return lenient_answer(text) if given is None else given


def marked_answer(answer: str) -> str:
    """Return the content of an answer's last box, or the text after its last `####`; without either the whole answer."""
    return _last_boxed(answer) or _after_last_hashes(answer) or answer


def last_number(text: str) -> str | None:
    """Return the last number in the last 1,000 characters of `text`, in ASCII digits."""
    tail = text[-MAX_ANSWER_CHARS:].translate(_ASCII_FORMS)
    found = None
    for match in _NUMBER_IN_TEXT.finditer(tail):
        # A number at the start of the cut-off tail may have lost its first digits.
        if match.start() > 0 or len(text) <= MAX_ANSWER_CHARS:
            found = match.group()
    return found


def parse_number(text: str) -> Fraction | None:
    """Return the exact value of a written number, or None.

    Accepted: a sign, comma-separated thousands, leading zeros, a decimal part, one fraction bar, full-width digits, a leading
    dollar sign, a final full stop. Rejected on purpose: exponents, percentages, units, expressions.
    """
    if len(text) > MAX_ANSWER_CHARS:
        return None
    plain = text.translate(_ASCII_FORMS).strip().removeprefix("$").removesuffix(".").strip()
    match = _NUMBER.fullmatch(plain)
    if match is None:
        return None
    sign, whole, decimals, denominator = match.groups()
    if not whole and not decimals:
        return None
    whole, decimals = whole.replace(",", ""), decimals or ""
    value = Fraction(int((whole + decimals) or "0"), 10 ** len(decimals))
    if denominator is not None:
        if int(denominator) == 0:
            return None
        value /= int(denominator)
    return -value if sign == "-" else value


def same_number(first: str, second: str) -> bool:
    """True if both texts are numbers with exactly equal values."""
    first_value, second_value = parse_number(first), parse_number(second)
    return first_value is not None and first_value == second_value


def normalise_text(text: str) -> str:
    """Normalise a non-numeric answer for comparison: ASCII forms, lower case, single spaces, no final full stop."""
    return " ".join(text.translate(_ASCII_FORMS).casefold().split()).removesuffix(".").rstrip()


def same_answer(given: str, reference: str) -> bool:
    """Compare numbers as numbers, anything else as normalised text; an answer that is too long or empty equals nothing."""
    if max(len(given), len(reference)) > MAX_ANSWER_CHARS:
        return False
    if parse_number(reference) is not None:
        return same_number(given, reference)
    return bool(normalise_text(given)) and normalise_text(given) == normalise_text(reference)


def answer_key(text: str | None) -> str | None:
    """Return a canonical spelling that is the same for all equal answers, to count votes; None for an unusable answer.

    Two answers have the same key exactly if they are the same number, or if neither is a number and their normalised texts
    are equal: "1,200." and "1200" both give "1200", and "0.5" gives "1/2".
    """
    if text is None or len(text) > MAX_ANSWER_CHARS:
        return None
    value = parse_number(text)
    return str(value) if value is not None else normalise_text(text) or None


def _usable(body: str | None, most_chars: int = MAX_ANSWER_CHARS) -> str | None:
    """Return `body` stripped, or None if it is missing, too long, or has no visible character."""
    if body is None or len(body) > most_chars or not has_visible_text(body):
        return None
    return body.strip()


def _last_answer_block(text: str) -> str | None:
    start = text.rfind(ANSWER_OPEN)
    if start < 0:
        return None
    start += len(ANSWER_OPEN)
    next_tag = _ANY_TAG.search(text, start)
    return _usable(text[start : next_tag.start() if next_tag else len(text)])


def _last_boxed(text: str) -> str | None:
    return _usable(last_boxed(text))


def _after_last_hashes(text: str) -> str | None:
    start = text.rfind(_HASHES)
    if start < 0:
        return None
    start += len(_HASHES)
    line_end = text.find("\n", start)
    return _usable(text[start : line_end if line_end >= 0 else len(text)])
