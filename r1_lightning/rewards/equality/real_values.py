r"""Evaluates a sympy expression at a point with mpmath, to as many digits as the expression needs.

Written mathematics is mostly about real numbers, so the calculator is real: an even root or a logarithm of a negative number has no
value (`NoValue`), and an odd root of a negative number is real, as in \sqrt[3]{-8} = -2. With `is_complex` it uses the principal
branches instead, for formulas with i.

`digits_needed` makes sure that rounding hides no difference: 2^{100} and 2^{100}-1 agree to 30 digits, so a formula with such a
power is computed with 30 more digits. Undefined functions and derivatives are treated as names: f(x) has no value, but equals
itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import mpmath
import sympy

SPARE_DIGITS = 60  # in addition to the digits of a formula's powers
MAX_DIGITS = 20_000  # formulas that need more are not computed, and equal only if they are written alike
MAX_TERMS = 500  # of a sum
_LOST_DIGITS = 15  # digits that a sum may lose before it is recomputed with more
_SYMBOL_DIGITS = 4  # of a coordinate, before the decimal point
_NAMES = [
    "sin",
    "cos",
    "tan",
    "cot",
    "sec",
    "csc",
    "sinh",
    "cosh",
    "tanh",
    "coth",
    "sech",
    "csch",
    "asin",
    "acos",
    "atan",
    "acot",
    "asec",
]
_NAMES += ["acsc", "asinh", "acosh", "atanh", "exp", "factorial", "gamma", "binomial", "floor", "sign", "re", "im"]
_FUNCTIONS: dict[str, Callable[..., Any]] = {name: getattr(mpmath, name) for name in _NAMES}
_FUNCTIONS |= {
    "ceiling": mpmath.ceil,
    "Abs": abs,
    "Max": max,
    "Min": min,
    "factorial2": mpmath.fac2,
    "conjugate": mpmath.conj,
}
BRANCHING = (
    "Abs",
    "Max",
    "Min",
    "floor",
    "ceiling",
    "sign",
    "Piecewise",
)  # other formulas are analytic where they are real


class NoValue(ArithmeticError):
    """The formula has no (real, finite) value at this point."""


def as_names(formula: Any) -> Any:
    """Replace each derivative and each applied undefined function in `formula` by one symbol, named as it is written."""
    opaque = formula.atoms(sympy.Derivative, sympy.core.function.AppliedUndef)
    return formula.xreplace({part: sympy.Symbol(f"<{sympy.srepr(part)}>") for part in opaque})


def digits_needed(*formulas: Any) -> int:
    """Return the number of digits at which rounding loses nothing that is written in `formulas`."""
    digits = float(SPARE_DIGITS)
    for formula in formulas:
        for part in sympy.preorder_traversal(formula):
            if part.is_Pow and part.exp.is_Rational:
                digits += abs(float(part.exp)) * _size(part.base)
            elif part.is_Rational:
                digits += _size(part)
            elif isinstance(part, sympy.factorial | sympy.gamma) and part.args[0].is_Rational:
                digits += 4 * abs(float(part.args[0]))
    return int(min(digits, MAX_DIGITS + 1))


def _size(base: Any) -> float:
    """Estimate the digits of a number before and after the point; for a symbol those of a coordinate."""
    if base.is_Rational:
        return math.log10(abs(base.p) + 1) + math.log10(base.q)
    return float(_SYMBOL_DIGITS)


def value_at(formula: Any, point: Mapping[Any, Any], digits: int, is_complex: bool = False) -> Any:
    """Return the value as an mpmath number. Raises `NoValue` if there is none."""
    calculator = _Calculator(point, is_complex)
    value = calculator.calculated(formula, digits)
    if calculator.largest <= mpmath.mpf(10) ** _LOST_DIGITS:
        return value
    lost = int(mpmath.log10(calculator.largest))
    if lost > MAX_DIGITS:
        raise NoValue("a sum of numbers that are too large")
    return calculator.calculated(formula, digits + lost)  # because cosh^2 x - sinh^2 x is 1 for large x, too


class _Calculator:
    """Evaluates one expression tree at one point."""

    def __init__(self, point: Mapping[Any, Any], is_complex: bool) -> None:
        self.point, self.is_complex = point, is_complex
        self.largest = mpmath.mpf(1)  # the largest term of all sums, which bounds the digits that a sum may lose

    def calculated(self, formula: Any, digits: int) -> Any:
        with mpmath.workdps(digits):
            try:
                value = self.value(formula)
            except (ValueError, ZeroDivisionError, OverflowError, TypeError, NotImplementedError) as error:
                raise NoValue(str(error)) from None
            if not mpmath.isfinite(value):
                raise NoValue("not finite")
            return value

    def value(self, part: Any) -> Any:
        if part.is_Rational:
            return mpmath.mpf(part.p) / part.q
        if part.is_Symbol:
            here = self.point[part]
            return mpmath.mpf(here.p) / here.q
        if part is sympy.I:
            return mpmath.mpc(0, 1)
        if part.is_NumberSymbol:
            return part._to_mpmath(mpmath.mp.prec)
        if part.is_Add:
            terms = [self.value(term) for term in part.args]
            self.largest = max(self.largest, *map(abs, terms))
            return mpmath.fsum(terms)
        if part.is_Mul:
            return mpmath.fprod(self.value(factor) for factor in part.args)
        if part.is_Pow:
            return self._power(self.value(part.base), self.value(part.exp), part.exp)
        if isinstance(part, sympy.Sum | sympy.Product) and len(part.limits) == 1:
            return self._in_turn(part)
        return self._function(part)

    def _in_turn(self, part: Any) -> Any:
        """Evaluate a sum or product over integers, term by term."""
        name, first, last = part.limits[0]
        start, end = self.value(first), self.value(last)
        if not (mpmath.isint(start) and mpmath.isint(end)) or not -1 <= end - start < MAX_TERMS:
            raise NoValue("no whole number of terms, or too many")
        terms = []
        for number in range(int(start), int(end) + 1):
            inner = _Calculator({**self.point, name: sympy.Integer(number)}, self.is_complex)
            terms.append(inner.value(part.function))
            self.largest = max(self.largest, inner.largest, abs(terms[-1]))
        return mpmath.fsum(terms) if isinstance(part, sympy.Sum) else mpmath.fprod(terms)

    def _function(self, part: Any) -> Any:
        name = type(part).__name__
        values = [self.value(argument) for argument in part.args]
        if name == "UnevaluatedExpr":
            return values[0]
        if name == "log":
            return self._logarithm(values[0]) / (self._logarithm(values[1]) if len(values) > 1 else 1)
        if name not in _FUNCTIONS:
            raise NoValue(name)
        value = _FUNCTIONS[name](*values)
        if isinstance(value, mpmath.mpc) and not self.is_complex:
            raise NoValue("not real")
        return value

    def _logarithm(self, value: Any) -> Any:
        if value == 0 or (not self.is_complex and value < 0):
            raise NoValue("a logarithm of nothing or less")
        return mpmath.log(value)

    def _power(self, base: Any, exponent: Any, written: Any) -> Any:
        if base == 0:
            if mpmath.re(exponent) <= 0 and exponent != 0:
                raise NoValue("nothing below a fraction bar")
            return mpmath.mpf(exponent == 0)
        if self.is_complex or base > 0 or mpmath.isint(exponent):
            return mpmath.power(base, exponent)
        fraction = _as_fraction(written)
        if fraction is None or fraction.q % 2 == 0:
            raise NoValue("an even root of a negative number")
        size = mpmath.power(-base, exponent)
        return -size if fraction.p % 2 else size


def _as_fraction(exponent: Any) -> Any:
    if exponent.is_Rational:
        return exponent
    if exponent.free_symbols:
        return None
    worked_out = exponent.doit()
    return worked_out if worked_out.is_Rational else None
