"""Formulas: read into sympy without being evaluated, and compared by their values or by `math-verify`.

`math-verify`'s parser (latex2sympy2_extended) reads LaTeX by a grammar; nothing is evaluated as Python. Every decimal becomes an
exact fraction. Two expressions are the same if they agree to 25 digits at fixed points: expressions that are analytic and agree
at points that nobody chose for them are equal, and simplifying their difference would cost a hundred times as much, or never
end. Equations, inequalities, unions and matrices go to `math-verify`'s own comparison, without its SIGALRM timeouts, which fail
off the main thread: the limit is the kill of `rewards.verifier_pool`. Its rounding to six decimals is off, too.

These functions take text that `text.math_text.danger` let through, and sympy may still need long for it: call them where they
can be killed.
"""

from __future__ import annotations

import hashlib
import logging
import re
from functools import lru_cache
from typing import Any

_NOTHING = 1e-80  # what remains of an exact zero; nothing that passes `danger` is smaller without being zero
_CLOSE = 1e-25  # relative: the rest of the digits is the computation's
DIGITS = 30  # to which formulas are computed there
POINTS = 4  # at how many points two formulas are compared; half of them have negative coordinates
# The parser reads 2(3) as a mixed number, which makes 5. Not after an index or a power, as in log_2(8).
_IMPLIED_PRODUCT = re.compile(r"(?<![_^][0-9])(?<=[0-9)])\s*(?=\()")
# What is not worked out is no answer, and working it out may never end.
_PROCESS = re.compile(r"\\(?:int|iint|oint|sum|prod|lim)(?![a-z])")
_DEGREES = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)[^,]*\^\\circ")


@lru_cache(maxsize=256)  # a group of completions shares its reference
def read_formula(text: str) -> Any:
    """`text`, in plain spelling, as an unevaluated sympy expression with exact numbers; None where it is no formula."""
    import sympy
    from latex2sympy2_extended.latex2sympy2 import ConversionConfig, NormalizationConfig, latex2sympy

    if _PROCESS.search(text):
        return None
    config = NormalizationConfig(basic_latex=True, malformed_operators=True, nits=True, boxed="none")
    conversion = ConversionConfig(interpret_as_mixed_fractions=False, lowercase_symbols=False)
    in_degrees = _DEGREES.search(text) is not None
    text = text if in_degrees else text.replace(r"^\circ", "")
    try:
        formula = latex2sympy(
            _for_parser(text),
            convert_degrees=in_degrees,
            normalization_config=config,
            conversion_config=conversion,
        )
    except (MemoryError, RecursionError):
        raise
    except Exception:  # the parser raises plain Exception for what it does not understand
        return None
    if not isinstance(formula, sympy.Basic | sympy.MatrixBase):
        return None
    exact = {number: sympy.Rational(str(number)) for number in formula.atoms(sympy.Float)}
    exact[sympy.Symbol("i")] = sympy.I
    return formula.xreplace(exact)


def _for_parser(text: str) -> str:
    text = re.sub(r"(?<=[0-9]),(?=[0-9]{3})", "", text.replace("**", "^").replace("*", r"\cdot "))
    return _IMPLIED_PRODUCT.sub(r"\\cdot ", text)


def agree_at_points(first: Any, second: Any) -> bool | None:
    """Whether two sympy expressions have the same, finite values; None where they are no expressions of numbers.

    Two analytic expressions that agree at points that nobody chose for them are equal; simplifying their difference would
    say the same at a hundred times the cost, or never.
    """
    import sympy

    if not (isinstance(first, sympy.Expr) and isinstance(second, sympy.Expr)):
        return None
    if first == second:
        return not first.has(sympy.nan, sympy.zoo)
    symbols = sorted(first.free_symbols | second.free_symbols, key=str)
    compared = 0
    for number in range(POINTS if symbols else 1):
        point = {symbol: _coordinate(str(symbol), number) for symbol in symbols}
        values = _value_at(first, point), _value_at(second, point)
        if None in values:
            continue
        if not _close(*values):
            return False
        compared += 1
    return compared > 0


def _coordinate(symbol: str, number: int) -> Any:
    """A fraction between 1/2 and 3, negative at every second point, that depends on the symbol's name alone."""
    import sympy

    digest = int.from_bytes(hashlib.blake2b(f"{symbol}/{number}".encode(), digest_size=4).digest(), "big")
    return (-1) ** number * (sympy.Rational(1, 2) + sympy.Rational(digest % 9973, 3989))


def _value_at(formula: Any, point: Any) -> Any:
    """The value as a pair (real, imaginary) of sympy Floats, or None."""
    try:
        value = formula.evalf(DIGITS, subs=point, maxn=120)
        parts = value.as_real_imag()
    except (MemoryError, RecursionError):
        raise
    except Exception:  # what sympy cannot compute has no value
        return None
    return parts if all((part.is_Float or part.is_Rational) and part.is_finite for part in parts) else None


def _close(first: Any, second: Any) -> bool:
    size = max(*(abs(part) for part in (*first, *second)))
    apart = max(abs(a - b) for a, b in zip(first, second, strict=True))
    return bool(apart <= _CLOSE * size or size < _NOTHING)


def verified(given: str, reference: str) -> bool:
    """`math-verify`'s own comparison, both ways round where it is not symmetric, without its timeouts and rounding."""
    import math_verify

    logging.getLogger("math_verify").setLevel(logging.ERROR)
    ours, theirs = read_formula(reference), read_formula(given)
    if ours is None or theirs is None:
        return False
    return bool(
        math_verify.verify(
            ours,
            theirs,
            float_rounding=DIGITS,
            numeric_precision=2 * DIGITS,
            allow_set_relation_comp=True,
            timeout_seconds=None,
        )
    )
