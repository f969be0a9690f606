r"""Answers that mean harm, made by the number: deep nesting, towers of powers, unbalanced LaTeX, megabytes, control characters,
other scripts, functions that take for ever. Number n is always the same text.
"""

from __future__ import annotations

import random

_ATOMS = (
    "x",
    "1",
    "7",
    r"\pi",
    "n",
    "99",
    r"\infty",
    "-3",
    "0",
    "12345678901234567890",
    "i",
    "e",
    "2.5",
    "θ",
    "三",
    "y_1",
)
_CALLS = (
    r"\sqrt{%s}",
    r"\sin(%s)",
    r"\frac{1}{%s}",
    "(%s)^{9}",
    "(%s)!",
    r"\log_2(%s)",
    "|%s|",
    r"\Gamma(%s)",
    r"\zeta(%s)",
)
_JOINS = ("+", "-", r"\cdot ", "^", "/", "=", "<", ",", r"\cup", "", r"\pm ", "_", r" \mod ", "&", r"\\")
_TRAPS = (
    "10^{10^{10}}",
    "10^10^10^10",
    "((9^{99})^{99})^{99}",
    "9999999999!",
    "9!!!!!!",
    r"\binom{10^9}{10^8}",
    r"\sum_{k=1}^{\infty}\frac{\sin k}{k!}",
    r"\prod_{k=1}^{999}k^k",
    r"\int_0^\infty e^{-x^2}\sin(x^3)dx",
    r"\lim_{n\to\infty}(1+\frac{1}{n})^n",
    r"\Gamma(10000000)",
    "x^{999}-(x+1)^{999}=0",
    "x^9-x^5+3=y^7",
    r"\begin{pmatrix}1&2\\3\end{pmatrix}^{99}",
    "[1,2]" + r"\cup[3,4]" * 30,
    "__import__('os').system('true')",
)
_SCRIPTS = "абвгд אבגד ابتث ไทย देव 漢字仮名 🎲🧮 ∮∯⨌ \u202e\u200b\ufeff \ud800"


def hostile_answer(number: int) -> str:
    """Text number `number` of the endless sequence; most are short, some are megabytes."""
    rng = random.Random(number)
    kind = rng.randrange(10)
    if kind == 0:
        depth = rng.randrange(2, 3_000)
        opening, closing = rng.choice(
            (("(", ")"), ("{", "}"), ("[", "]"), (r"\sqrt{", "}"), (r"\frac{1}{", "}"), ("-(", ")"))
        )
        return opening * depth + "1" + closing * depth
    if kind == 1:
        return rng.choice(_TRAPS)
    if kind == 2:
        return "".join(rng.choice("{}()[]\\$^_&%~ \n1x") for _ in range(rng.randrange(1, 200)))
    if kind == 3:
        return rng.choice(("9", "x+", "(", "\\frac", "1,", "{", " ", "\\", "a^", "$", "十", "=")) * rng.choice(
            (300, 5_000, 2**20)
        )
    if kind == 4:
        return "".join(chr(rng.randrange(0x20)) + rng.choice("12x+") for _ in range(rng.randrange(1, 40)))
    if kind == 5:
        return "".join(rng.choice(_SCRIPTS) for _ in range(rng.randrange(1, 100)))
    return _formula(rng, rng.randrange(1, 6))


def _formula(rng: random.Random, depth: int) -> str:
    if depth == 0 or rng.random() < 0.15:
        return rng.choice(_ATOMS)
    if rng.random() < 0.4:
        return rng.choice(_CALLS) % _formula(rng, depth - 1)
    return _formula(rng, depth - 1) + rng.choice(_JOINS) + _formula(rng, depth - 1)
