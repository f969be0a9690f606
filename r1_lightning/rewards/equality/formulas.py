r"""Parses LaTeX formulas into sympy expressions without evaluating them.

`math-verify`'s parser (latex2sympy2_extended) reads LaTeX by a grammar; nothing is evaluated as Python. Every decimal becomes an
exact fraction. Text that the parser would misread is rejected or rewritten: a number with a base (66_8), which it reads as 66, is
no formula; a prime, which it drops, becomes a part of the name. `math-verify`'s own comparison is not used: it rounds to six
decimals, treats any two relations between numbers as equal, and times out by SIGALRM, which fails off the main thread.

Call these functions only with text that passed `text.math_text.danger`, and in a process that can be killed, because sympy may
still take long.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import sympy
from latex2sympy2_extended.latex2sympy2 import ConversionConfig, NormalizationConfig, latex2sympy

from r1_lightning.rewards.equality.real_values import as_names

# The parser reads 2(3) as a mixed number, which makes 5. Not after an index or a power, as in log_2(8).
_IMPLIED_PRODUCT = re.compile(r"(?<![_^][0-9])(?<=[0-9)])\s*(?=\()")
# Evaluating these may never end.
_PROCESS = re.compile(r"\\(?:int|iint|oint|lim)(?![a-z])")
_CROSS_PRODUCT = re.compile(r"\\(?:vec|overrightarrow)[^+\-]*\\times")  # which does not commute
_PRIME = re.compile(r"([a-zA-Z])('+)")
_BASED = re.compile(r"(?<!\\log_)(?<!\\log)(?<![0-9a-zA-Z}_])[0-9]+\s*_")
_DEGREES = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)[^,]*\^\\circ")


@lru_cache(maxsize=256)  # a group of completions shares its reference
def read_formula(text: str) -> Any:
    """Parse `text`, in plain spelling, into an unevaluated sympy expression with exact numbers; None if it is not a formula."""
    if _PROCESS.search(text) or _BASED.search(text) or _CROSS_PRODUCT.search(text):
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
    if not formula.has(sympy.Sum, sympy.Product):  # in sums and products i may be the index
        exact[sympy.Symbol("i")] = sympy.I
    formula = formula.xreplace(exact)
    return as_names(formula) if isinstance(formula, sympy.Expr) else formula


def _for_parser(text: str) -> str:
    text = re.sub(
        r"(?<![a-zA-Z\\])([fghFG])\^\{?-1\}?(?=\()", r"\1_{inv}", text
    )  # an inverse function is not a reciprocal
    text = re.sub(
        r"\\(min|max|gcd)\s*\\?\{([^{}]*)\\?\}", lambda match: rf"\{match[1]}({match[2].rstrip(chr(92))})", text
    )
    text = _PRIME.sub(lambda match: f"{match[1]}_{{p{len(match[2])}}}", text)  # the parser would drop it
    text = re.sub(r"(?<=[0-9]),(?=[0-9]{3})", "", text.replace("**", "^").replace("*", r"\cdot "))
    return _IMPLIED_PRODUCT.sub(r"\\cdot ", text)
