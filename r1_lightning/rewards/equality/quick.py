r"""Decides whether two written answers are the same mathematics: text in, a verdict and its reason out; no state, no torch.

Three ways, the cheapest first:

1. `quick_comparison` uses text and exact fractions alone: texts that are written alike, plain quantities, letters of multiple
   choice, words, dates, times, and values behind a name. It answers in microseconds and may run in any process.
2. `structure` takes lists, points, sets, intervals, equations and inequalities apart, so that order, brackets, signs and names
   count where they mean something.
3. `agreement` uses algebra: a parser turns a formula into a sympy tree without evaluating it; two formulas are the same if their
   values are.

Rules that leave training no gap to exploit: nothing is rounded; words are words ("lube" is no product that equals "blue"); a
date is no subtraction; (1,2) is neither [1,2] nor {1,2}; a relation between numbers equals only itself; the base is part of a
number. Nothing is evaluated as Python. `text.math_text.danger` refuses expensive expressions, but only after the texts have been
compared: 2^{2005} equals itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from r1_lightning.text.answers import MAX_ANSWER_CHARS, normalise_text
from r1_lightning.text.labels import has_relation, labelled
from r1_lightning.text.math_text import danger, is_balanced, plain_math, spelled
from r1_lightning.text.quantities import parse_quantity, same_quantity, split_unit

_CHOICE = re.compile(r"[(\[]?\s*([A-J])\s*[)\]]?[.:]?")
_CHOICES = re.compile(r"[(\[]?[A-J](?:\s*[,;]\s*[A-J])+[)\]]?|[A-J]{2,6}")
_CHOICE_GIVEN = re.compile(
    r"(?:(?:the\s+)?(?:correct\s+)?(?:(?:option|choice|answer)(?:\s+is)?|选项?|选择)\s*)?[(\[]?\s*([A-J])\s*"
    r"(?:[)\]]?[.:]?|[)\].:]\s*(?!and\b|or\b|[,;&/])\S.*)",
    re.I | re.S,
)
_DATE_OR_TIME = re.compile(
    r"[0-9]{1,4}([-/:])[0-9]{1,2}(?:\1[0-9]{1,4}|(?<=:[0-9][0-9])(?:\s*[ap]\.?m\.?)?)|[0-9]+\s*:\s*[0-9]+.*"
)
_NO_WORD = re.compile(r"\\(?:begin|end|mathbb)\s*\{[^{}]*\}|\\[a-zA-Z]+|\b(?:and|or)\b|[和或]")
_WORD = re.compile(r"[a-zA-Z]{3,}|\b(?:no|No|NO|is|up)\b|[\u3400-\u9fff]")


_RATIO = re.compile(r"^([0-9]+) to ([0-9]+)$")
_ROMAN = re.compile(r"[IVXLC]{2,}")
_DAY_AND_MONTH = re.compile(
    r"\b([0-9]{1,2})(?:st|nd|rd|th)? (january|february|march|april|may|june|july|august|september|october|november|december)\b"
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """True if the answers are the same, and the reason in a few words for people."""

    same: bool
    why: str


def quick_comparison(given: str, reference: str) -> Comparison | None:
    """Compare by text and exact fractions alone; None if algebra is needed. Never raises, never hangs."""
    if max(len(given), len(reference)) > MAX_ANSWER_CHARS:
        return Comparison(False, "too long")
    plain, wanted = plain_math(given), plain_math(reference)
    if _alike(plain, wanted):
        return Comparison(True, "written alike")
    refused = danger(given) or danger(reference)
    if refused:
        return Comparison(False, refused)
    return quickly(plain, wanted)


def quickly(given: str, reference: str) -> Comparison | None:
    """Compare as `quick_comparison`, but texts must be in plain spelling and have passed `danger`."""
    if not given or not reference:
        return Comparison(False, "nothing is written")
    if _alike(given, reference):
        return Comparison(True, "written alike")
    if (choice := _by_choice(given, reference)) is not None:
        return Comparison(choice, "multiple choice")
    if (bare := without_name(given, reference)) != (given, reference):
        return quickly(*bare)
    given, reference = (_RATIO.sub(r"\1:\2", text) for text in (given, reference))
    if _DATE_OR_TIME.fullmatch(reference) or _DATE_OR_TIME.fullmatch(given):
        if not (parse_quantity(given) and parse_quantity(reference)):
            return Comparison(_clock(given) == _clock(reference), "date, time or ratio")
    theirs, ours = parse_quantity(given), parse_quantity(reference)
    if theirs is not None and ours is not None:
        return Comparison(same_quantity(theirs, ours), "quantities")
    (value, theirs_unit), (wanted, our_unit) = split_unit(given), split_unit(reference)
    if theirs_unit and our_unit and theirs_unit != our_unit:
        return Comparison(False, "another unit")
    if theirs_unit or our_unit:
        return quickly(value, wanted)
    if is_words(reference) or is_words(given):
        return Comparison(_words(given) == _words(reference), "words")
    return None


def _alike(given: str, reference: str) -> bool:
    """True if both are written alike, except for braces and spaces that are optional in LaTeX."""
    if not re.search(r"\w", given) and given not in (r"\{\}", "∅"):
        return False
    return given == reference or (spelled(given) == spelled(reference) and is_balanced(given))


def without_name(given: str, reference: str) -> tuple[str, str]:
    """Remove a name that only one side has: `x = 5` and `5` are the same answer; names on both sides stay."""
    theirs, ours = labelled(given), labelled(reference)
    if theirs and not ours and not theirs.between and not has_relation(reference + theirs.value):
        return theirs.value, reference
    if ours and not theirs and not ours.expression and not ours.between and not has_relation(given + ours.value):
        return given, ours.value
    return given, reference


def _by_choice(given: str, reference: str) -> bool | None:
    if match := _CHOICE.fullmatch(reference):
        chosen = _CHOICE_GIVEN.fullmatch(given)
        return chosen is not None and chosen[1].upper() == match[1]
    wanted = re.findall("[A-J]", reference)
    if _CHOICES.fullmatch(reference) and len(set(wanted)) == len(wanted):
        letters = re.fullmatch(r"[(\[]?[A-J](?:[\s,;]|and)*(?:[A-J](?:[\s,;]|and)*)*[)\]]?", given)
        chosen_in_turn = re.findall("[A-J]", given)
        if reference.isalpha() and given.isalpha():  # ABC may be a triangle
            return chosen_in_turn == wanted
        return letters is not None and set(chosen_in_turn) == set(wanted)
    return None


def _clock(text: str) -> str:
    plain = re.sub(r"[\s.]|(?<![0-9])0+(?=[0-9])", "", text.casefold())
    afternoon = re.fullmatch(r"([0-9]+)(:[0-9]+)pm", plain)
    return f"{int(afternoon[1]) % 12 + 12}{afternoon[2]}" if afternoon else plain


def is_words(text: str) -> bool:
    """True if `text` contains a word: three letters in a row outside LaTeX commands, or a Chinese character."""
    if _ROMAN.fullmatch(text):
        return True
    return parse_quantity(text) is None and labelled(text) is None and _WORD.search(_NO_WORD.sub(" ", text)) is not None


def _words(text: str) -> str:
    return _DAY_AND_MONTH.sub(r"\2 \1", re.sub(r"[\s{}'\"]+", " ", normalise_text(text)).strip())
