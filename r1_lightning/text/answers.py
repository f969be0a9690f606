"""Which answer a completion gives, and whether two answers are the same.

Two readings of one completion are kept apart everywhere, because their difference is the difference between learning
the form and learning to reason:

- *strict*: what stands in the place that the form of the completion gives it, by default the one, closed answer block
  (`final_answer`);
- *lenient*: the answer at the end in any form (`lenient_answer`): the last answer block even if it is not closed, else
  the last `\\boxed{...}`, else what follows the last `####`, else the last number.

Numbers are compared exactly, as fractions of whole numbers: 1,200 = 1200 = 1200.0 = +01200, and 0.5 = 1/2. Nothing is
evaluated, and an answer of more than 1,000 characters is no answer, so hostile text costs no time. (A reward whose answers are
longer says so.)
"""

from __future__ import annotations

import re
from fractions import Fraction

from r1_lightning.text.boxed import last_boxed
from r1_lightning.text.reasoning_format import ANSWER_OPEN, FORMS, R1_ZERO_FORM, TAGS, has_visible_text

MAX_ANSWER_CHARS = 1_000

# Full-width forms that Chinese text uses, the typographic minus, and the Chinese full stop.
_ASCII_FORMS = str.maketrans("０１２３４５６７８９＋－−．，／。＄", "0123456789+--.,/.$")

_NUMBER = re.compile(r"([+-]?)((?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)?)(?:\.([0-9]*))?(?:/([0-9]+))?")

# A sign belongs to the number only if no operand stands before it: "8-5" ends in 5, "= -5" ends in -5.
_NUMBER_IN_TEXT = re.compile(
    r"(?:(?<![\w).])[+-])?(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?(?:/[0-9]+)?"
)
_ANY_TAG = re.compile("|".join(map(re.escape, TAGS)))
_HASHES = "####"


def final_answer(text: str, form: str = R1_ZERO_FORM, most_chars: int = MAX_ANSWER_CHARS) -> str | None:
    """The strict answer, stripped; None if nothing stands in its place, or not exactly one thing, or more than `most_chars`.

    The place is that of the `form` (`reasoning_format.FORMS`): the only answer block, or in R1's form the summary's last box. The
    think block is not asked for here: whether the whole form is right is the format reward's question.
    """
    return _usable(FORMS[form].parse(text).answer, most_chars)


def lenient_answer(text: str) -> str | None:
    """The answer at the end of `text` in any of the forms named above, or None if there is none."""
    return _last_answer_block(text) or _last_boxed(text) or _after_last_hashes(text) or last_number(text)


def marked_answer(answer: str) -> str:
    """What stands in the last box of an answer, or after its last `####`; all of the answer where neither is there."""
    return _last_boxed(answer) or _after_last_hashes(answer) or answer


def last_number(text: str) -> str | None:
    """The last number written in the last 1,000 characters of `text`, in ASCII digits."""
    tail = text[-MAX_ANSWER_CHARS:].translate(_ASCII_FORMS)
    found = None
    for match in _NUMBER_IN_TEXT.finditer(tail):
        # A number that begins where the tail was cut may have lost its first digits.
        if match.start() > 0 or len(text) <= MAX_ANSWER_CHARS:
            found = match.group()
    return found


def parse_number(text: str) -> Fraction | None:
    """The exact value of a written number, or None.

    Understood: a sign, thousands separated by commas, leading zeros, a decimal part, one fraction bar, full-width
    digits, a dollar sign before, a full stop after. Not understood, on purpose: exponents, percentages, units,
    expressions.
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
    """True if both are numbers and are exactly equal. Two texts that are not numbers are not the same number."""
    first_value, second_value = parse_number(first), parse_number(second)
    return first_value is not None and first_value == second_value


def normalise_text(text: str) -> str:
    """A non-numeric answer for comparison: ASCII forms, lower case, single spaces, no full stop at the end."""
    return " ".join(text.translate(_ASCII_FORMS).casefold().split()).removesuffix(".").rstrip()


def same_answer(given: str, reference: str) -> bool:
    """Numbers are compared as numbers, anything else as normalised text. Too long or empty is never the same."""
    if max(len(given), len(reference)) > MAX_ANSWER_CHARS:
        return False
    if parse_number(reference) is not None:
        return same_number(given, reference)
    return bool(normalise_text(given)) and normalise_text(given) == normalise_text(reference)


def answer_key(text: str | None) -> str | None:
    """One spelling for all answers that are the same, so that votes can be counted; None for no usable answer.

    Two answers have the same key exactly if they are the same number, or neither is a number and their normalised texts
    agree: "1,200." and "1200" both give "1200", and "0.5" gives "1/2".
    """
    if text is None or len(text) > MAX_ANSWER_CHARS:
        return None
    value = parse_number(text)
    return str(value) if value is not None else normalise_text(text) or None


def _usable(body: str | None, most_chars: int = MAX_ANSWER_CHARS) -> str | None:
    """`body` stripped, or None where it is missing, too long, or shows nothing."""
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
