r"""Separates a name from its value: in `x = 5`, `P(A)=\frac12`, `AB=5`, `a_{10}=55` the value is the answer.

A name has no numbers except indices and arguments: `2x=10` and `x+1=5` are equations. A sum or a product of letters (`a+b=5`) may
be the quantity that a question asks for, so an answer may have it as a name; in a reference it is a curve, which 5 does not
equal.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from r1_lightning.text.quantities import parse_quantity

_COMMAND = r"\\(?!frac|sqrt|cdot|times|pm|le|ge|ne|in|cup|cap|sin|cos|tan|log|ln|pi(?![a-z])|infty)[a-zA-Z]+(?:\{[a-zA-Z]{1,3}\})?"
_LETTER = rf"(?:[a-zA-Z]|{_COMMAND})"
_INDEX = r"(?:_\{[^{}=]*\}|_\w)?'*"
_NAME = rf"{_LETTER}{_INDEX}"
_SIMPLE = re.compile(_NAME)
_CAPITALS = r"(?:\\(?:triangle|angle|overline|overrightarrow|widehat|vec|hat|bar|measuredangle)\s*)*\{?[A-Z]{1,6}'?\}?"
_COMPOUND = re.compile(
    "|".join(
        [
            rf"{_NAME}(?:\^\{{?-1\}}?|\^\{{\([0-9a-z]\)\}})?[(\[].*[)\]]",  # f(1), P(X=3), f^{-1}(x), E[X]
            r"[A-Z][a-z]{1,4}\([^()]*\)",  # Var(X)
            r"\([a-zA-Z]\^?\\circ[a-zA-Z]\)\([^()]*\)",
            rf"m?{_CAPITALS}{_INDEX}(?:\+{_CAPITALS})*",  # AB, \angle ABC, AB+BC
            rf"[|\[]{_CAPITALS}[|\]]|\|{_NAME}\|",  # |AB|, [ABC], |z|
            rf"{_LETTER}_\{{?\\?[a-zA-Z ]+\}}?",  # S_{ABC}
            r"\\frac\{d[^{}]*\}\{d[^{}]*\}",
            rf"\({_NAME}(?:,{_NAME})+\)",  # (x,y)
            rf"{_NAME}(?::{_NAME})+",  # a:b
            rf"\\(?:sin|cos|tan|cot|sec|csc)(?:\^\{{?2\}}?)?{_NAME}",
        ]
    )
)
_WORDS = re.compile(r"(?!.*\b(?:not|or|and)\b)[a-zA-Z][a-zA-Z ]{2,40}")
_EXPRESSION = re.compile(rf"{_NAME}(?:(?:[+-]|\\cdot|\*)?{_NAME}){{1,3}}")
_EQUALS = re.compile(r"(?<![<>!:=])(?:=|\\equiv(?![a-zA-Z]))(?!=)")
_RELATION = re.compile(r"[=<>]|\\(?:le|ge|ne|lt|gt|in|neq|leq|geq|approx|equiv|sim)(?![a-zA-Z])")
_INDEX_OF_SUM = re.compile(r"_\{[^{}]*\}")
_MEMBER = re.compile(r"([a-zA-Z]|\\[a-z]+)\s*\\in(?![a-zA-Z])\s*(.+)", re.DOTALL)
_OTHER_RELATION = re.compile(r"[<>]|\\(?:le|ge|ne|lt|gt|in|neq|leq|geq|approx|sim)(?![a-zA-Z])")


@dataclass(frozen=True, slots=True)
class Labelled:
    """A parsed `x = 2+3 = 5`: the `label` in canonical spelling, the `value` after the last equals sign, the sides `between`.

    `simple`: the label is one letter with its index, which may also be a variable of an equation. `expression`: it is a sum or
    product of these.
    """

    label: str
    value: str
    between: tuple[str, ...] = ()
    simple: bool = False
    expression: bool = False


def labelled(text: str) -> Labelled | None:
    """Split `text`, in plain spelling, at its equals signs if a name precedes the first; None otherwise."""
    if match := _MEMBER.fullmatch(text.strip()):
        return Labelled(_one_spelling(match[1]), match[2].strip(), simple=True)
    outside = _without_insides(text)
    if _OTHER_RELATION.search(outside):
        return None
    signs = [match.span() for match in _EQUALS.finditer(outside)]
    cuts = [0, *(place for span in signs for place in span), len(text)]
    label, *sides = (text[start:end].strip() for start, end in zip(cuts[::2], cuts[1::2], strict=True))
    if not sides or not all(sides):
        return None
    close = re.sub(r"\s+", "", label)
    simple = _SIMPLE.fullmatch(close) is not None
    expression = not simple and not _COMPOUND.fullmatch(close) and not _WORDS.fullmatch(label)
    if expression and not _EXPRESSION.fullmatch(close):
        return None
    return Labelled(_one_spelling(close), sides[-1], tuple(sides[:-1]), simple, expression)


def has_relation(text: str) -> bool:
    r"""True if `text` states an equality, inequality or membership; the index of a sum, as in \sum_{k=1}^n k, does not count."""
    return _RELATION.search(_INDEX_OF_SUM.sub("", text)) is not None


def _without_insides(text: str) -> str:
    """Return `text` at equal length with dots inside brackets: P(X=3)=1 has one equals sign outside brackets."""
    outside, depth = [], 0
    for character in text:
        depth -= character in ")]}"
        outside.append("." if depth > 0 else character)
        depth += character in "([{"
    return "".join(outside)


def _one_spelling(label: str) -> str:
    if arguments := re.fullmatch(r"(.*?)\(([^()]*)\)", re.sub(r"\s", "", label)):
        amount = parse_quantity(arguments[2])
        if amount is not None:  # f(0.5) equals f(\frac12)
            return f"{_one_spelling(arguments[1])}({amount.number})"
    plain = re.sub(r"\\(?:overline|mathrm|measuredangle|widehat|triangle)(?![a-zA-Z])|[{}\s|]", "", label)
    return "".join(sorted(plain)) if re.fullmatch("[A-Z]{2}", plain) else plain
