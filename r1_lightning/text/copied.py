r"""Detects an answer that only copies the question's expression: "Compute $139+27+23+11$" is not answered by $139+27+23+11$.

Such an answer has the right value, so no comparison with the reference can refuse it, and reinforcement learning would exploit it.
An answer is a copy if its tokens are adjacent in the question, in any order, unless the reference consists of the same tokens. For
plain quantities the form matters: 0.75 is a copy if the reference is 3/4, but 12.0 is not if it is 12. A calculation in place of
an integer is a copy, too, if all of its numbers are in the question: 48/2+48 is not yet 72.

Spelling does not matter (\dfrac, spaces, braces, multiplication signs). The time is linear in the length of the question.
"""

from __future__ import annotations

import re
from collections import Counter

from r1_lightning.text.labels import labelled
from r1_lightning.text.math_text import plain_math
from r1_lightning.text.quantities import Quantity, parse_quantity

MAX_QUESTION_CHARS = 20_000
_TOKEN = re.compile(r"\\[a-zA-Z]+|\S")
_THOUSANDS = re.compile(r"(?<=[0-9])(?:,|\{,\})(?=[0-9]{3}(?![0-9]))")
_DROPPED = frozenset(
    ["{", "}", "$", r"\left", r"\right", r"\cdot", r"\times", "*", r"\text", r"\mathrm", r"\displaystyle", r"\,", "\\"]
)
_SAME = {
    "/": r"\frac \dfrac \tfrac \cfrac \div ÷",
    r"\binom": r"\dbinom \tbinom",
    r"\le": r"\leq \leqslant",
    r"\ge": r"\geq \geqslant",
    "-": "−",
}
_RENAMED = {"×": "", **{other: name for name, others in _SAME.items() for other in others.split()}}
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_OPERATION = re.compile(r"[0-9)}]\s*(?:[-+*/^!]|\\(?:cdot|times|div))|\\(?:frac|d?binom|sqrt|log|ln|sum|prod)")


def is_copied(given: str, reference: str, question: str) -> bool:
    """True if `given`, which has the value of `reference`, is copied from `question` without being computed."""
    if len(question) > MAX_QUESTION_CHARS:
        return False
    theirs, ours = plain_math(given), plain_math(reference)
    named = labelled(theirs)
    if named and not labelled(ours):
        theirs = named.value
    amount, wanted = parse_quantity(theirs), parse_quantity(ours)
    if amount and wanted:
        if _same_form(theirs, ours, amount, wanted):
            return False
        return _stands_in(theirs, question) or (
            _is_whole(ours) and "/" in _tokens(theirs) and _has_numbers(theirs, question)
        )
    if Counter(_tokens(theirs)) == Counter(_tokens(ours)):
        return False
    if _is_whole(ours) and _OPERATION.search(theirs) and "=" not in theirs and _has_numbers(theirs, question):
        return True
    return _stands_in(theirs, question)


def _same_form(given: str, reference: str, amount: Quantity, wanted: Quantity) -> bool:
    """True if two quantities differ only in optional parts: zeros, commas, a unit, a percent sign."""
    if "/" in _tokens(given) or "/" in _tokens(reference):
        return Counter(_tokens(given)) == Counter(_tokens(reference))
    return amount.number == wanted.number and ("^" in given) == ("^" in reference)


def _is_whole(reference: str) -> bool:
    return re.fullmatch(r"[+-]?[0-9]+", _THOUSANDS.sub("", reference)) is not None


def _has_numbers(given: str, question: str) -> bool:
    asked = set(_NUMBER.findall(_THOUSANDS.sub("", question)))
    numbers = _NUMBER.findall(_THOUSANDS.sub("", given))
    return bool(numbers) and all(number in asked for number in numbers)


def _tokens(text: str) -> list[str]:
    found = (_RENAMED.get(token, token) for token in _TOKEN.findall(_THOUSANDS.sub("", text)))
    return [token for token in found if token and token not in _DROPPED]


def _stands_in(given: str, question: str) -> bool:
    """True if some run of the question's tokens has the tokens of `given`, in any order, and splits no number."""
    wanted, asked = Counter(_tokens(given)), _tokens(question)
    size = sum(wanted.values())
    if not 0 < size <= len(asked):
        return False
    off = Counter(wanted)  # the wanted tokens minus those of the current run
    off.subtract(asked[:size])
    differing = sum(count != 0 for count in off.values())
    for start in range(len(asked) - size + 1):
        if not differing and not _cuts_a_number(asked, start) and not _cuts_a_number(asked, start + size):
            return True
        if start + size == len(asked):
            break
        for token, change in ((asked[start], 1), (asked[start + size], -1)):
            differing -= off[token] != 0
            off[token] += change
            differing += off[token] != 0
    return False


def _cuts_a_number(tokens: list[str], at: int) -> bool:
    return 0 < at < len(tokens) and tokens[at - 1].isdigit() and tokens[at].isdigit()
