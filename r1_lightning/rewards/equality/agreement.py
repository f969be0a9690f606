r"""Decides whether two formulas are equal by comparing their values at points, to the precision of all digits in them.

Analytic expressions that agree at generic points are equal; simplifying their difference gives the same result at a hundred times
the cost, or never ends. Three decisions:

- A point counts only if both values are real, as in textbooks: \ln a+\ln b equals \ln ab, \frac1{\sqrt n} equals \sqrt{\frac1n}.
  But a *reference* with branches (|x-5|, \max(x,10)) is meant everywhere, and a formula without a value at a point differs from
  it.
- For a formula with branches there are points on both sides of every number in it, of their quotients and sums, and far out.
- Formulas that are real nowhere are compared at integers ((-1)^n), and then as complex numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import mpmath
import sympy

from r1_lightning.rewards.equality.real_values import BRANCHING, MAX_DIGITS, NoValue, digits_needed, value_at

ENOUGH = 6  # points at which analytic formulas are compared
TRIED = 36  # candidate points, because a value may not be real
LEAST = 3  # fewer points do not decide
MAX_BRANCH_POINTS = 120
MAX_SYMBOLS = 12
_ROUNDING = 20  # digits of a value that computing it may lose
_SCALES = (
    "1",
    "1",
    "4",
    "1",
    "1/4",
    "12",
    "1",
    "4",
    "150",
    "1",
    "1/4",
    "2000",
)  # a root or logarithm may begin anywhere
_BESIDE = sympy.Rational(2137, 10_000)  # distance of a point from a border

Points = Sequence[dict[Any, Any]]


def agree_at_points(given: Any, reference: Any) -> bool | None:
    """True if two sympy expressions have the same finite values; None if they are not numeric expressions."""
    if not (isinstance(given, sympy.Expr) and isinstance(reference, sympy.Expr)):
        return None
    if given == reference:
        return not given.has(sympy.nan, sympy.zoo)
    digits = digits_needed(given, reference)
    symbols = symbols_of(given, reference)
    if digits > MAX_DIGITS or len(symbols) > MAX_SYMBOLS:
        return False
    if not (given.has(sympy.I) or reference.has(sympy.I)):
        for points in (points_for(given, reference), whole_points(symbols) if symbols else [{}]):
            agree = _agree(given, reference, points, digits)
            if agree is not None:
                return agree
    return bool(_agree(given, reference, points_for(given, reference), digits, is_complex=True))


def _agree(given: Any, reference: Any, points: Points, digits: int, is_complex: bool = False) -> bool | None:
    """True if they agree wherever both have a value; None if both have values at too few points."""
    has_branches = branches(reference)
    enough = len(points) if has_borders(given) or has_borders(reference) else ENOUGH
    compared = 0
    for point in points:
        ours = value_or_none(reference, point, digits, is_complex)
        theirs = value_or_none(given, point, digits, is_complex)
        if ours is None or theirs is None:
            if has_branches and ours is not None:
                return False
            continue
        if not close(theirs, ours, digits):
            return False
        compared += 1
        if compared >= enough:
            break
    return True if compared >= min(LEAST, len(points)) else None


def symbols_of(*formulas: Any) -> list[Any]:
    """Return the symbols of all `formulas`, sorted."""
    return sorted(set().union(*(formula.free_symbols for formula in formulas)), key=str)


def branches(formula: Any) -> bool:
    """True if `formula` is piecewise: it may then agree with another on some pieces only."""
    return any(type(part).__name__ in BRANCHING for part in sympy.preorder_traversal(formula))


def has_borders(formula: Any) -> bool:
    r"""True if `formula` may change its form at some number: it has branches, or roots (\sqrt{(x-5)^2} is |x-5|)."""
    roots = (part for part in formula.atoms(sympy.Pow) if part.exp.is_Rational and not part.exp.is_Integer)
    return branches(formula) or any(part.base.free_symbols for part in roots)


def points_for(*formulas: Any) -> Points:
    """Return generic points for `formulas`; if one of them has branches, also points on both sides of each border."""
    symbols = symbols_of(*formulas)
    if not symbols:
        return [{}]
    points = [{symbol: _coordinate(str(symbol), number) for symbol in symbols} for number in range(TRIED)]
    if any(map(has_borders, formulas)):
        sides = _sides_of_borders(formulas)
        count = min(len(sides), MAX_BRANCH_POINTS)
        for number in range(count):
            of_each = [number, *(_digest(f"{symbol}|{number}") % count for symbol in symbols[1:])]
            points.append({symbol: sides[place] for symbol, place in zip(symbols, of_each, strict=True)})
    return points


def whole_points(symbols: Sequence[Any]) -> Points:
    """Return small integers as points, for formulas that are real nowhere else."""
    return [{symbol: sympy.Integer(1 + (start + 3 * n) % 8) for n, symbol in enumerate(symbols)} for start in range(8)]


def _sides_of_borders(formulas: Sequence[Any]) -> list[Any]:
    numbers = sorted({abs(number) for formula in formulas for number in formula.atoms(sympy.Rational)})[:8]
    borders = dict.fromkeys([sympy.Integer(0), *numbers])
    borders |= dict.fromkeys(a / b for a in numbers for b in numbers if b)
    borders |= dict.fromkeys(a + b for a in numbers for b in numbers)
    sides = (sign * border + beside for border in borders for sign in (1, -1) for beside in (_BESIDE, -_BESIDE, 0))
    return list(dict.fromkeys(sides))


@lru_cache(maxsize=4096)
def _coordinate(symbol: str, number: int) -> Any:
    """Return a fraction of the number-th scale that depends on the symbol's name alone: positive twice, then of either sign."""
    digest = _digest(f"{symbol}/{number}")
    turn = (number + number // len(_SCALES)) % 3  # so that each scale has each sign
    sign = 1 if number < 2 or turn == 1 else -1 if turn == 2 else (-1) ** (digest // 9973)
    return (
        sign
        * sympy.Rational(_SCALES[number % len(_SCALES)])
        * (sympy.Rational(1, 2) + sympy.Rational(digest % 9973, 3989))
    )


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big")


def value_or_none(formula: Any, point: dict[Any, Any], digits: int, is_complex: bool = False) -> Any:
    """Return the value as an mpmath number, or None if there is none."""
    try:
        return value_at(formula, point, digits, is_complex)
    except NoValue:
        return None


def close(first: Any, second: Any, digits: int) -> bool:
    """True if two mpmath values agree in all digits except those that computing them may lose."""
    with mpmath.workdps(digits):
        size = max(abs(first), abs(second), 1)
        return bool(abs(first - second) <= size * mpmath.mpf(10) ** (_ROUNDING - digits))
