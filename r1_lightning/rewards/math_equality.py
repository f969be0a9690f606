r"""Are two written answers the same mathematics? Text in, a verdict and its reason out; no state, no process, no torch.

Three ways, the cheapest first:

1. `quick_comparison`, by text and exact fractions alone: plain quantities, letters of multiple choice, words, dates, times.
   It answers in microseconds and may run anywhere.
2. by structure: lists, points, sets and intervals are taken apart, so that order and brackets count where they mean something.
3. by algebra: `math-verify`'s parser (latex2sympy2_extended) reads a formula into sympy without evaluating it. Two formulas are
   the same if they agree to 25 digits at fixed points, after every decimal was made an exact fraction; equations,
   inequalities, unions and matrices go to `math-verify`'s own comparison.

What we do otherwise than `math-verify`, because its answer would be a gap that training finds: nothing is rounded (it compares six
decimals, so that 0.0000001 equals 0.0000004), words are words (it reads "lube" as a product that equals "blue"), a date is no
subtraction, (1,2) is neither [1,2] nor {1,2}. Nothing is evaluated as Python, and its SIGALRM timeouts, which fail off the main
thread, are off: the limit is the kill of `rewards.verifier_pool`. `text.math_text.danger` refuses what would be expensive.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from r1_lightning.rewards.formulas import agree_at_points, read_formula, verified
from r1_lightning.text.answers import normalise_text
from r1_lightning.text.math_text import WrittenList, danger, is_balanced, plain_math, split_list
from r1_lightning.text.quantities import parse_quantity, same_quantity, split_unit

MAX_ITEMS = 30

_CHOICE = re.compile(r"[(\[]?\s*([A-J])\s*[)\]]?[.:]?")
_CHOICES = re.compile(r"[(\[]?[A-J](?:\s*[,;]\s*[A-J])+[)\]]?|[A-J]{2,6}")
_CHOICE_GIVEN = re.compile(
    r"(?:(?:option|choice|选项?|选择)\s*)?[(\[]?\s*([A-J])\s*(?:[)\]]?[.:]?|[)\].:]\s*\S.*)", re.I | re.S
)
_DATE_OR_TIME = re.compile(
    r"[0-9]{1,4}([-/:])[0-9]{1,2}(?:\1[0-9]{1,4}|(?<=:[0-9][0-9])(?:\s*[ap]\.?m\.?)?)|[0-9]+\s*:\s*[0-9]+.*"
)
_NO_WORD = re.compile(r"\\(?:begin|end|mathbb)\s*\{[^{}]*\}|\\[a-zA-Z]+|\b(?:and|or)\b|[和或]")
_IDLE_SPACE = re.compile(r"(?<![0-9a-zA-Z])\s+|\s+(?![0-9a-zA-Z])")
_WORD = re.compile(r"[a-zA-Z]{3,}|\b(?:no|No|NO|is|up)\b|[\u3400-\u9fff]")
_ASSIGNED = re.compile(
    r"(?:[a-zA-Z]|\\[a-z]+)(?:_\{?\w\}?)?(?:\([a-z](?:,[a-z])*\))?\s*(?:=|\\in(?![a-z]))(?![=<>])\s*(.+)", re.S
)
_RELATION = re.compile(r"[=<>]|\\(?:le|ge|ne|lt|gt|in|neq|leq|geq|approx)(?![a-zA-Z])")
_GREATER = re.compile(r">=|\\ge(?![a-z])|\\gt(?![a-z])|>")
_LESS_OR_EQUAL = re.compile(r"<|(?<!>)=|\\(?:le|lt|ne|in)(?![a-z])")
_STRUCTURE = re.compile(r"\\(?:cup|cap|setminus|begin|emptyset|mathbb)")
_SIGN_PAIR = re.compile(r"^(?P<name>[^\\]*=)?\s*(?P<middle>.*?)\s*\\pm\s*(?P<rest>[^\\].*|\\(?!pm).*)$", re.S)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Whether the answers are the same, and why, in a few words for people."""

    same: bool
    why: str


def quick_comparison(given: str, reference: str) -> Comparison | None:
    """What text and exact fractions alone can decide; None where algebra is needed. Never raises, never hangs."""
    refused = danger(given) or danger(reference)
    if refused:
        return Comparison(False, refused)
    return _quickly(plain_math(given), plain_math(reference))


def compare(given: str, reference: str) -> Comparison:
    """Whether `given` says the same as `reference`. Costs what sympy costs; may raise what sympy raises."""
    quick = quick_comparison(given, reference)
    return quick if quick is not None else _by_structure(plain_math(given), plain_math(reference))


def _quickly(given: str, reference: str) -> Comparison | None:
    if not given or not reference:
        return Comparison(False, "nothing is written")
    if (choice := _by_choice(given, reference)) is not None:
        return Comparison(choice, "multiple choice")
    if _DATE_OR_TIME.fullmatch(reference) or _DATE_OR_TIME.fullmatch(given):
        if not (parse_quantity(given) and parse_quantity(reference)):
            return Comparison(_clock(given) == _clock(reference), "date, time or ratio")
    theirs, ours = parse_quantity(given), parse_quantity(reference)
    if theirs is not None and ours is not None:
        return Comparison(same_quantity(theirs, ours), "quantities")
    if _is_words(reference) or _is_words(given):
        return Comparison(_words(given) == _words(reference), "words")
    if _IDLE_SPACE.sub("", given) == _IDLE_SPACE.sub("", reference) and is_balanced(given):
        return Comparison(True, "written alike")
    return None


def _by_choice(given: str, reference: str) -> bool | None:
    if match := _CHOICE.fullmatch(reference):
        chosen = _CHOICE_GIVEN.fullmatch(given)
        return chosen is not None and chosen[1].upper() == match[1]
    if _CHOICES.fullmatch(reference):
        letters = re.fullmatch(r"[(\[]?[A-J](?:[\s,;]|and)*(?:[A-J](?:[\s,;]|and)*)*[)\]]?", given)
        return letters is not None and set(re.findall("[A-J]", given)) == set(re.findall("[A-J]", reference))
    return None


def _clock(text: str) -> str:
    return re.sub(r"[\s.]|(?<![0-9])0+(?=[0-9])", "", text.casefold())


def _is_words(text: str) -> bool:
    """Whether `text` holds a word: three letters in a row that are no LaTeX command, or a Chinese character."""
    return parse_quantity(text) is None and _WORD.search(_NO_WORD.sub(" ", text)) is not None


def _words(text: str) -> str:
    return re.sub(r"[\s{}'\"]+", " ", normalise_text(text)).strip()


# ------------------------------------------------------------------------------------------------------------ structure


def _by_structure(given: str, reference: str, depth: int = 0) -> Comparison:
    given, reference = _without_name(_upright(given), _upright(reference))
    (given, theirs_unit), (reference, our_unit) = split_unit(given), split_unit(reference)
    if theirs_unit and our_unit and theirs_unit != our_unit:
        return Comparison(False, "another unit")
    quick = _quickly(given, reference)
    if quick is not None and (quick.same or quick.why != "words"):
        return quick
    if not (is_balanced(given) and is_balanced(reference)):
        return Comparison(False, "unbalanced brackets")
    if _STRUCTURE.search(given) or _STRUCTURE.search(reference):
        return Comparison(verified(given, reference), "math-verify")
    theirs, ours = _as_list(given), _as_list(reference)
    if max(len(theirs.items), len(ours.items)) > MAX_ITEMS:
        return Comparison(False, f"more than {MAX_ITEMS} items")
    if len(theirs.items) == len(ours.items) == 1 and {theirs.brackets, ours.brackets} <= {"", "()"}:
        return _as_formulas(theirs.items[0], ours.items[0])
    if depth > 2:
        return Comparison(False, "lists too deep")
    if (_RELATION.search(given) and len(theirs.items) == 1) or (_RELATION.search(reference) and len(ours.items) == 1):
        return Comparison(verified(given, reference), "math-verify")
    if not _brackets_agree(theirs, ours):
        return Comparison(False, f"brackets {theirs.brackets or 'none'} for {ours.brackets or 'none'}")
    same = _same_items if ours.brackets in ("{}", "") else _same_in_order
    return Comparison(same(theirs.items, ours.items, depth + 1), "items of a list")


def _without_name(given: str, reference: str) -> tuple[str, str]:
    """`x = 5` and `5` are the same answer to a question for x; two different names are not."""
    ours, theirs = _ASSIGNED.fullmatch(reference), _ASSIGNED.fullmatch(given)
    if theirs and not _RELATION.search(reference) and not _RELATION.search(theirs[1]):
        return theirs[1].strip(), reference
    if ours and not _RELATION.search(given) and not _RELATION.search(ours[1]):
        return given, ours[1].strip()
    return given, reference


def _upright(text: str) -> str:
    """`text` with its inequality signs to the left: 2 > x > 1 is 1 < x < 2."""
    signs = _GREATER.findall(text)
    if not signs or _LESS_OR_EQUAL.search(text) or "," in text:
        return text
    sides = [side.strip() for side in _GREATER.split(text)][::-1]
    turned = [r"\le" if sign in (r"\ge", ">=") else "<" for sign in signs][::-1]
    return " ".join(sides[:1] + [word for pair in zip(turned, sides[1:], strict=True) for word in pair])


def _as_list(text: str) -> WrittenList:
    r"""The list that `text` writes; `a \pm b` is the two of them."""
    if (match := _SIGN_PAIR.match(text)) and r"\pm" not in match["middle"] and "," not in text:
        name, middle, rest = match["name"] or "", match["middle"], match["rest"]
        return WrittenList("", (f"{name}{middle}+{rest}" if middle else f"{name}{rest}", f"{name}{middle}-{rest}"))
    return split_list(text)


def _brackets_agree(theirs: WrittenList, ours: WrittenList) -> bool:
    """The same brackets, or, for a set, none: the solutions 1 and 2 are {1, 2}; a point may lack its brackets, too."""
    if theirs.brackets == ours.brackets:
        return True
    return {theirs.brackets, ours.brackets} == {"{}", ""}


def _same_items(theirs: tuple[str, ...], ours: tuple[str, ...], depth: int) -> bool:
    """Each item of one is an item of the other."""
    table = [[_by_structure(plain_math(a), plain_math(b), depth).same for b in ours] for a in theirs]
    return all(map(any, table)) and all(map(any, zip(*table, strict=True)))


def _same_in_order(theirs: tuple[str, ...], ours: tuple[str, ...], depth: int) -> bool:
    pairs = zip(theirs, ours, strict=False)
    return len(theirs) == len(ours) and all(_by_structure(plain_math(a), plain_math(b), depth).same for a, b in pairs)


# -------------------------------------------------------------------------------------------------------------- algebra


def _as_formulas(given: str, reference: str) -> Comparison:
    if _RELATION.search(given) or _RELATION.search(reference):
        if bool(_RELATION.search(given)) != bool(_RELATION.search(reference)):
            return Comparison(False, "a relation and none")
        return Comparison(verified(given, reference), "math-verify")
    ours, theirs = read_formula(reference), read_formula(given)
    if theirs is None or ours is None:
        return Comparison(False, "not readable as a formula")
    agree = agree_at_points(theirs, ours)
    if agree is None:
        return Comparison(verified(given, reference), "math-verify")
    return Comparison(agree, "formulas")
