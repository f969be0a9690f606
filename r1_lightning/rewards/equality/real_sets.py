r"""Parses and compares sets of real numbers: intervals, unions, and inequalities that are solved for their variable.

`x<-2 \text{ or } x>2` and `(-\infty,-2)\cup(2,\infty)` are the same set. A set is stored as ordered pieces, merged where they
touch, with formulas as borders; two sets are equal if their pieces are. An inequality counts as a set only if its variable stands
alone (`2x>4` is not yet x>2); `rewards.equality.relations` compares unsolved ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import mpmath
import sympy

from r1_lightning.rewards.equality.agreement import agree_at_points, value_or_none
from r1_lightning.rewards.equality.formulas import read_formula

MAX_PIECES = 20
_DIGITS = 60  # precision for sorting borders; `agree_at_points` decides whether two are equal
_SIGN = re.compile(r"<=|>=|<|>|\\(?:le|ge|lt|gt|ne)(?![a-zA-Z])|(?<![<>])=")
_TURN = {"<": (False, "<"), r"\lt": (False, "<"), "<=": (True, "<"), r"\le": (True, "<"), ">": (False, ">"), r"\gt": (False, ">"),
         ">=": (True, ">"), r"\ge": (True, ">"), "=": (True, "="), r"\ne": (True, "ne")}  # fmt: skip
_UNION = re.compile(r"\\cup(?![a-zA-Z])|\bor\b|[或]")
_INTERSECTION = re.compile(r"\\cap(?![a-zA-Z])|\band\b|[且]")
_LOOKS_LIKE_SET = re.compile(
    r"[<>]|\\(?:le|ge|lt|gt|ne|cup|cap|setminus|infty|mathbb|R|emptyset|varnothing)(?![a-zA-Z])"
)
_BUILDER = re.compile(
    r"\\?\{\s*([a-zA-Z])\s*(?:\\in\s*\\(?:mathbb\s*\{?\s*R\s*\}?|R)\s*)?(?:\\mid|\||:)\s*(.+?)\s*\\?\}", re.DOTALL
)
_MEMBER = re.compile(r"([a-zA-Z]|\\[a-z]+)\s*\\in(?![a-zA-Z])\s*(.+)", re.DOTALL)
_ALL = re.compile(r"\\mathbb\s*\{?\s*R\s*\}?|\\R|all real numbers|all reals|\\Bbb\s*\{?R\}?|全体实数")
_NONE = re.compile(r"\\(?:emptyset|varnothing)|\\\{\s*\\\}|empty set|空集")
_NAME = re.compile(r"(?:[a-zA-Z]|\\(?:theta|alpha|beta|lambda|mu|phi|omega|xi|gamma))(?:_\{?\w+\}?)?'*")
_EXCLUDED = re.compile(r"(?P<name>.+?)\\ne(?![a-zA-Z])(?P<values>[^<>=]*,[^<>=]*)")


@dataclass(frozen=True, slots=True)
class Piece:
    """The interval from `low` to `high`, sympy expressions with values `from_` and `to`; `has_low` is True if `low` is included."""

    low: Any
    has_low: bool
    high: Any
    has_high: bool
    from_: Any
    to: Any


@dataclass(frozen=True, slots=True)
class RealSet:
    """A set as ordered, disjoint `pieces` that do not touch; `name` is the variable of an inequality, "" for none."""

    pieces: tuple[Piece, ...]
    name: str = ""


def looks_like_set(text: str) -> bool:
    """True if `text` has a sign that occurs only in sets and inequalities; (1,2) and [1,2] may mean something else."""
    return _LOOKS_LIKE_SET.search(text) is not None and text.strip().lstrip("+-") != r"\infty"


def same_set(given: RealSet, reference: RealSet) -> bool:
    """True if both sets have the same numbers and do not have different variable names."""
    if given.name and reference.name and given.name != reference.name:
        return False
    pairs = list(zip(given.pieces, reference.pieces, strict=False))
    return len(given.pieces) == len(reference.pieces) and all(_same_piece(ours, theirs) for ours, theirs in pairs)


def _same_piece(given: Piece, reference: Piece) -> bool:
    closed = (given.has_low, given.has_high) == (reference.has_low, reference.has_high)
    return closed and _same_border(given.low, reference.low) and _same_border(given.high, reference.high)


def _same_border(given: Any, reference: Any) -> bool:
    return given == reference if reference.is_infinite or given.is_infinite else bool(agree_at_points(given, reference))


def read_set(text: str) -> RealSet | None:
    """Parse `text`, in plain spelling, as a set; None if it is not one, or an inequality not solved for its variable."""
    name = ""
    if match := _BUILDER.fullmatch(text) or _MEMBER.fullmatch(text):
        name, text = match[1], match[2]
    if match := _EXCLUDED.fullmatch(text):
        text = " and ".join(rf"{match['name']}\ne {value}" for value in match["values"].split(","))
    parts = _cut(text, _UNION)
    found: RealSet | None = None
    for part in parts:
        here = _read_commas(part)
        found = here if found is None else _joined(found, here, _union)
        if found is None:
            return None
    if found is None or (name and found.name and name != found.name):
        return None
    return replace(found, name=name or found.name)


def _read_commas(text: str) -> RealSet | None:
    """Combine comma-separated inequalities: their intersection if that is not empty, else their union."""
    sets = [_read_both(part) for part in _cut(text, re.compile("[,;，]"))]
    found, *others = sets
    for other in others:
        if found is None or other is None:
            return None
        together = _joined(found, other, _intersection)
        found = together if together is None or together.pieces else _joined(found, other, _union)
    return found


def _read_both(text: str) -> RealSet | None:
    found, *others = (_read_one(part) for part in _cut(text, _INTERSECTION))
    for other in others:
        found = _joined(found, other, _intersection)
    return found


def _read_one(text: str) -> RealSet | None:
    whole, *without = (part.strip() for part in re.split(r"\\setminus(?![a-zA-Z])|\\backslash(?![a-zA-Z])", text))
    found = _read_atom(whole)
    for part in without:
        found = _joined(found, _read_atom(part), lambda first, second: _intersection(first, _complement(second)))
    return found


def _read_atom(text: str) -> RealSet | None:
    text = text.strip()
    if _ALL.fullmatch(text):
        return RealSet(_piece(-sympy.oo, False, sympy.oo, False))
    if _NONE.fullmatch(text):
        return RealSet(())
    if _SIGN.search(text):
        return _read_chain(text)
    if text.startswith((r"\{", "{")) and text.endswith("}"):
        numbers = [_number(item) for item in text.replace(r"\{", "{").replace(r"\}", "}")[1:-1].split(",")]
        return (
            None
            if None in numbers
            else RealSet(_union((), *(_piece(number, True, number, True) for number in numbers)))
        )
    if len(text) > 4 and text[0] in "([" and text[-1] in ")]":
        ends = _cut(text[1:-1], re.compile("[,;，]"))
        low, high = map(_number, ends) if len(ends) == 2 else (None, None)
        if low is not None and high is not None:
            pieces = _piece(low, text[0] == "[", high, text[-1] == "]")
            return RealSet(pieces) if pieces else None
    return None


def _read_chain(text: str) -> RealSet | None:
    """Parse `1 < x <= 2`: one variable alone between numbers."""
    signs, sides = _SIGN.findall(text), [side.strip() for side in _SIGN.split(text)]
    names = {re.sub(r"[\s{}]", "", side) for side in sides if _NAME.fullmatch(side) and side not in ("e", "i", r"\pi")}
    if len(names) != 1 or len(signs) > 2:
        return None
    pieces = _piece(-sympy.oo, False, sympy.oo, False)
    for sign, left, right in zip(signs, sides, sides[1:], strict=False):
        closed, turn = _TURN[sign]
        if _NAME.fullmatch(left) and (number := _number(right)) is not None:
            pass
        elif _NAME.fullmatch(right) and (number := _number(left)) is not None:
            turn = {"<": ">", ">": "<"}.get(turn, turn)
        else:
            return None
        pieces = _intersection(pieces, _beyond(number, closed, turn))
    return RealSet(pieces, names.pop())


def _beyond(number: Any, closed: bool, turn: str) -> tuple[Piece, ...]:
    if turn == "<":
        return _piece(-sympy.oo, False, number, closed)
    if turn == ">":
        return _piece(number, closed, sympy.oo, False)
    point = _piece(number, True, number, True)
    return point if turn == "=" else _complement(point)


def _number(text: str) -> Any:
    """Parse a constant or an infinity; None for anything else."""
    formula = read_formula(text.strip().removeprefix("+")) if text.strip() else None
    if not isinstance(formula, sympy.Expr) or formula.free_symbols or formula.has(sympy.I):
        return None
    return formula if formula.is_infinite or value_or_none(formula, {}, _DIGITS) is not None else None


def _piece(low: Any, has_low: bool, high: Any, has_high: bool) -> tuple[Piece, ...]:
    """Return one piece, or none if it is empty."""
    from_, to = _value(low), _value(high)
    if from_ > to or (from_ == to and not (has_low and has_high)):
        return ()
    return (Piece(low, has_low and mpmath.isfinite(from_), high, has_high and mpmath.isfinite(to), from_, to),)


def _value(number: Any) -> Any:
    if number.is_infinite:
        return mpmath.inf if number == sympy.oo else -mpmath.inf
    return +value_or_none(number, {}, _DIGITS)


def _cut(text: str, where: re.Pattern[str]) -> list[str]:
    """Split `text` at the matches of `where` outside brackets."""
    parts, start = [], 0
    for match in where.finditer(text):
        before = text[: match.start()]
        if sum(map(before.count, "([{")) == sum(map(before.count, ")]}")):
            parts.append(text[start : match.start()])
            start = match.end()
    return [*parts, text[start:]]


def _joined(first: RealSet | None, second: RealSet | None, how: Callable[..., tuple[Piece, ...]]) -> RealSet | None:
    if first is None or second is None or (first.name and second.name and first.name != second.name):
        return None
    if len(first.pieces) + len(second.pieces) > MAX_PIECES:
        return None
    return RealSet(how(first.pieces, second.pieces), first.name or second.name)


def _union(*sets: Iterable[Piece]) -> tuple[Piece, ...]:
    pieces = sorted((piece for some in sets for piece in some), key=lambda piece: (piece.from_, not piece.has_low))
    joined: list[Piece] = []
    for piece in pieces:
        last = joined[-1] if joined else None
        if last is None or piece.from_ > last.to or (piece.from_ == last.to and not (last.has_high or piece.has_low)):
            joined.append(piece)
        elif (piece.to, piece.has_high) > (last.to, last.has_high):
            joined[-1] = replace(last, high=piece.high, has_high=piece.has_high, to=piece.to)
    return tuple(joined)


def _intersection(first: Iterable[Piece], second: Iterable[Piece]) -> tuple[Piece, ...]:
    found: list[Piece] = []
    second = tuple(second)
    for one in first:
        for other in second:
            low = max((one, other), key=lambda piece: (piece.from_, not piece.has_low))
            high = min((one, other), key=lambda piece: (piece.to, piece.has_high))
            found += _piece(low.low, low.has_low, high.high, high.has_high)
    return _union(found)


def _complement(pieces: Iterable[Piece]) -> tuple[Piece, ...]:
    rest = _piece(-sympy.oo, False, sympy.oo, False)
    for piece in pieces:
        below = _piece(-sympy.oo, False, piece.low, not piece.has_low) if piece.low != -sympy.oo else ()
        above = _piece(piece.high, not piece.has_high, sympy.oo, False) if piece.high != sympy.oo else ()
        rest = _intersection(rest, (*below, *above))
    return rest
