r"""Compares unsolved equations and inequalities: they are the same if one is a multiple of the other.

`20x+10=0` equals `2x+1=0`, and `3x+2y=6` equals `\frac x2+\frac y3=1`: with the right side subtracted from the left, one is a
constant times the other at generic points. Inequalities are first turned so that their signs point to the left; the constant must
then be positive. A relation between numbers (`2^3=8`) has nothing to multiply, and all true ones would be equal; so two such
relations are the same only if both sides are written alike.
"""

from __future__ import annotations

import re
from typing import Any

import mpmath
import sympy

from r1_lightning.rewards.equality.agreement import (
    ENOUGH,
    LEAST,
    close,
    has_borders,
    points_for,
    symbols_of,
    value_or_none,
)
from r1_lightning.rewards.equality.formulas import read_formula
from r1_lightning.rewards.equality.real_values import MAX_DIGITS, digits_needed
from r1_lightning.text.math_text import spelled

_SIGN = re.compile(r"<=|>=|=|<|>|\\(?:le|ge|ne|lt|gt)(?![a-zA-Z])")
_LEFT = {">": "<", r"\gt": "<", ">=": r"\le", r"\ge": r"\le"}
_SAME = {r"\lt": "<", "<=": r"\le"}


def same_relation(given: str, reference: str) -> bool:
    """True if two relations, in plain spelling, are the same; chains (a<b<c) are compared link by link, in order."""
    links = [_links(text) for text in (given, reference)]
    if not links[1] or len(links[0]) != len(links[1]):
        return False
    return all(_same_link(theirs, ours) for theirs, ours in zip(*links, strict=True))


def _links(text: str) -> list[str]:
    """Split `a<b<c` into a<b and b<c; in reverse order if all signs point to the right."""
    signs, sides = _SIGN.findall(text), _SIGN.split(text)
    if len(signs) > 1 and all(sign in _LEFT for sign in signs):
        signs, sides = [_LEFT[sign] for sign in reversed(signs)], sides[::-1]
    return [f"{left} {sign} {right}" for left, sign, right in zip(sides, signs, sides[1:], strict=False)]


def _same_link(given: str, reference: str) -> bool:
    ours, theirs = _difference(reference), _difference(given)
    if ours is None or theirs is None or ours[0] != theirs[0]:
        return False
    sign, difference, sides = ours
    if not difference.free_symbols:
        return _alike(theirs[2], sides, symmetric=sign in ("=", r"\ne"))
    return _is_multiple(theirs[1], difference, positive=sign in ("<", r"\le"))


def _difference(text: str) -> tuple[str, Any, list[str]] | None:
    """Return the relation's sign, turned to the left, its left side minus its right one, and both sides as written."""
    signs, sides = _SIGN.findall(text), [side.strip() for side in _SIGN.split(text)]
    if len(signs) != 1:
        return None
    if signs[0] in _LEFT:
        sides.reverse()
    sign = _LEFT.get(signs[0], _SAME.get(signs[0], signs[0]))
    left, right = map(read_formula, sides)
    if not (isinstance(left, sympy.Expr) and isinstance(right, sympy.Expr)):
        return None
    return sign, sympy.Add(left, sympy.Mul(-1, right, evaluate=False), evaluate=False), sides


def _alike(given: list[str], reference: list[str], symmetric: bool) -> bool:
    first, second = ([spelled(side) for side in sides] for sides in (given, reference))
    return first == second or (symmetric and first[::-1] == second)


def _is_multiple(given: Any, reference: Any, positive: bool) -> bool:
    """True if `given` is a non-zero constant times `reference` at points where both are real and not both zero."""
    digits = digits_needed(given, reference)
    if digits > MAX_DIGITS or symbols_of(given) != symbols_of(reference):
        return False
    factor, compared = None, 0
    points = points_for(given, reference)
    enough = len(points) if has_borders(given) or has_borders(reference) else ENOUGH
    for point in points:
        ours, theirs = (value_or_none(formula, point, digits) for formula in (reference, given))
        if ours is None or theirs is None:
            continue
        with mpmath.workdps(digits):
            if abs(ours) < mpmath.mpf(10) ** (20 - digits):
                return False
            here = theirs / ours
        if factor is None:
            factor = here
        if here == 0 or (positive and here < 0) or not close(here, factor, digits):
            return False
        compared += 1
        if compared >= enough:
            break
    return compared > LEAST
