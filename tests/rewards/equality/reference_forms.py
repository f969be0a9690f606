r"""The forms of mathematical references, each with the exact value of what it writes.

A form draws a few integers, writes them as LaTeX (in one or several spellings) and computes their meaning: a fraction, a tuple of
coefficients, a set of members, values at fixed points. One meaning may have many spellings; two texts of one form with different
meanings are certainly different answers. None of this uses the verifier; `mutated_references.py` builds on it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

Numbers = tuple[int, ...]
Write = Callable[..., str]

LENGTHS = {"mm": 1, "cm": 10, "m": 1_000, "km": 1_000_000}
UNITS = {u: ("length", Fraction(n)) for u, n in LENGTHS.items()} | {
    "mg": ("mass", Fraction(1, 1_000)),
    "g": ("mass", Fraction(1)),
    "kg": ("mass", Fraction(1_000)),
}
CHOICES = "ABCDE"
SHAPES = ("circle", "square", "rhombus", "trapezoid", "hexagon")
DIGITS = "零一二三四五六七八九"
FUNCTIONS = ("f", "g", "h", "f'", "f^{-1}", "f''")
RELATIONS = ("<", r"\le ", ">", r"\ge ")
TRIGONOMETRY = {"sin": math.sin, "cos": math.cos, "tan": math.tan, "arctan": math.atan}
POINTS = tuple(
    map(Fraction, ("-47", "-12", "-3", "-1", "0", "1", "2", "5", "9", "31", "88", "-7/2", "1/3", "5/4", "29/2"))
)
ANY, FEW, TWO, SOME = (-60, 60), (-9, 9), (11, 99), (2, 30)


class Form(NamedTuple):
    """`draw` gives the numbers, each of `writes` their LaTeX, `means` their meaning (ValueError where they have none)."""

    kind: str
    draw: Callable[[random.Random], Numbers]
    writes: tuple[Write, ...]
    means: Callable[..., Any]


def numbers(*ranges: tuple[int, int]) -> Callable[[random.Random], Numbers]:
    """Draws one whole number from each range, ends included."""
    return lambda rng: tuple(rng.randint(*ends) for ends in ranges)


def rising(*ranges: tuple[int, int]) -> Callable[[random.Random], Numbers]:
    """Draws two different numbers in order, then as `numbers`."""
    return lambda rng: (*sorted(rng.sample(range(-20, 21), 2)), *numbers(*ranges)(rng))


def pick(members: Any, place: int) -> Any:
    """A member by its place; ValueError past either end."""
    need(0 <= place < len(members))
    return list(members)[place]


def need(condition: bool) -> None:
    """ValueError where the numbers have no meaning."""
    if not condition:
        raise ValueError("no such value")


def exact(*parts: int) -> Numbers:
    """The numbers themselves are the meaning, in their order."""
    return parts


def where(condition: Callable[..., bool], means: Callable[..., Any] = exact) -> Callable[..., Any]:
    """The meaning of numbers that fulfil a condition; others have none."""

    def meaning(*parts: int) -> Any:
        need(condition(*parts))
        return means(*parts)

    return meaning


def shown(pattern: str) -> Write:
    """Writes the numbers where the pattern has <0>, <1>, ...; <+1> is the number with its sign."""

    def write(*parts: int) -> str:
        text = pattern
        for place, part in enumerate(parts):
            text = text.replace(f"<{place}>", str(part)).replace(f"<+{place}>", f"{part:+}")
        return text

    return write


def joined(between: str, frame: str = "%s") -> Write:
    """Writes the numbers one after another, in a frame."""
    return lambda *members: frame % between.join(map(str, members))


def polynomial(*coefficients: int, name: str = "x") -> str:
    """`polynomial(1, 0, -3)` is `x^{2}-3`."""
    text, top = "", len(coefficients) - 1
    for place, factor in enumerate(coefficients):
        power = {0: "", 1: name}.get(top - place, f"{name}^{{{top - place}}}")
        if factor:
            size = str(abs(factor)) if abs(factor) != 1 or not power else ""
            text += ("-" if factor < 0 else "+" if text else "") + size + power
    return text or "0"


def multiplied(*roots: int) -> Numbers:
    """The coefficients of the product of all x - root."""
    out = [1]
    for root in roots:
        out = [a - root * b for a, b in zip([*out, 0], [0, *out], strict=True)]
    return tuple(out)


def factored(*roots: int) -> str:
    """The product of all x - root, not multiplied out."""
    return "".join(f"({polynomial(1, -root)})" for root in roots)


def least_power(number: int, power: Fraction | int) -> tuple[int, Fraction]:
    """number ** power as (base, exponent) with the least whole base, which is one form for each value."""
    need(number > 1)
    for base in range(2, number + 1):
        exponent = round(math.log(number, base))
        if base**exponent == number:
            return base, exponent * Fraction(power)
    raise AssertionError("a number is its own first power")


def surd(whole: int, factor: int, radicand: int, below: int) -> tuple[Fraction, Fraction, int]:
    """(a + b sqrt(c)) / d with a c that no square divides, which is one form for each value."""
    need(radicand > 0 and factor > 0 and below > 0)
    for side in range(math.isqrt(radicand), 1, -1):
        if radicand % side**2 == 0:
            factor, radicand = factor * side, radicand // side**2
            break
    if radicand == 1:
        whole, factor = whole + factor, 0
    return Fraction(whole, below), Fraction(factor, below), radicand


def at_points(function: Callable[..., Any]) -> Callable[..., tuple[Any, ...]]:
    """The values of function(x, *numbers) at POINTS, near and far; None where it has no real value."""

    def values(*parts: int) -> tuple[Any, ...]:
        out: list[Any] = []
        for x in POINTS:
            try:
                out.append(function(x, *parts))
            except (ArithmeticError, ValueError):
                out.append(None)
        need(any(value is not None for value in out))
        return tuple(out)

    return values


def scaled(*coefficients: int) -> tuple[Fraction, ...]:
    """The coefficients of an equation, scaled so that the first is one."""
    need(coefficients[0] != 0)
    return tuple(Fraction(n, coefficients[0]) for n in coefficients)


def measured(amount: int, unit: int, power: int = 1) -> tuple[str, Fraction]:
    """An amount in the smallest unit of its dimension."""
    dimension, factor = pick(UNITS.values(), unit)
    return dimension, amount * factor**power


def in_base(base: int, *digits: int) -> int:
    """The number that the digits write in that base."""
    need(1 < base < 10 and digits[0] > 0 and all(0 <= digit < base for digit in digits))
    return sum(digit * base**place for place, digit in enumerate(reversed(digits)))


def chinese(n: int) -> str:
    """11 to 99 as Chinese writes them: 二十五."""
    return (DIGITS[n // 10] if n >= 20 else "") + "十" + (DIGITS[n % 10] if n % 10 else "")


def decimal(n: int, places: int) -> str:
    """n with the point so many places from the right."""
    text = str(n).rjust(places + 1, "0")
    return f"{text[:-places]}.{text[-places:]}"


def matrix(brackets: str) -> Write:
    """A matrix of two rows."""
    return shown(rf"\begin{{{brackets}matrix}}<0>&<1>\\<2>&<3>\end{{{brackets}matrix}}")


def bend(mode: int, a: int) -> str:
    """|x-a| and what it is on one side of a alone."""
    return pick((f"{a}-x", f"|x-{a}|", f"x-{a}"), mode)


def extreme(mode: int, a: int) -> str:
    """The smaller or larger of x and a, and what they are on one side of a alone."""
    return pick(("x", rf"\min(x,{a})", rf"\max(x,{a})", str(a)), mode)


def step(mode: int, a: int) -> str:
    """ax rounded down, not rounded, rounded up."""
    return pick((rf"\lfloor {a}x\rfloor", f"{a}x", rf"\lceil {a}x\rceil"), mode)


def wave(x: Fraction, a: int, name: int, b: int) -> float:
    """a times a function of bx."""
    return a * float(pick(TRIGONOMETRY.values(), name)(float(b * x)))
