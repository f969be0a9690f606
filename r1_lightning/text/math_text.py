r"""Written mathematics as text: one spelling of its signs, and the structure of lists, sets and intervals.

The same answer is written in many hands: `\dfrac{1}{2}`, `½`, `$\frac12$`, `１／２`. `plain_math` takes away what is only
spelling (full-width forms, typographic signs, dollar signs, `\text`, spacing, a box around the whole) and keeps what means
something. `split_list` says how a list stands: `(1,2)` is ordered, `\{1,2\}` is not, `[1,2)` is an interval.

`danger` is asked first of any text that a model wrote, before something that understands it is let near it: its length, depth,
digits and powers are bounded, so that what remains costs a computer algebra system little in nearly every case. The rest is
what `rewards.verifier_pool` kills.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

MAX_MATH_CHARS = 400  # the longest references of MATH, matrices included, have about 200
MAX_DEPTH = 10  # brackets within brackets; the parser's time grows steeply with them
MAX_DIGITS = 40  # of one number
MAX_POWERS = 12  # power signs and factorials of one answer

MAX_UNIONS = 8  # of intervals

_OPENING, _CLOSING = "([{", ")]}"

_SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹"
_SIGNS = {
    **{chr(code): chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)},  # the full-width forms of ASCII
    **{sign: f"^{{{digit}}}" for digit, sign in enumerate(_SUPERSCRIPTS)},
    **{
        "\u3000": " ",
        "。": ".",
        "、": ",",
        "−": "-",
        "–": "-",
        "—": "-",
        "﹣": "-",
        "‘": "'",
        "’": "'",
        "“": '"',
        "”": '"',
    },
    **{"×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": "/", "⁄": "/", "∕": "/", "∶": ":", "√": r"\sqrt "},
    **{"π": r"\pi ", "∞": r"\infty ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset "},
    **{
        "≤": r"\le ",
        "≥": r"\ge ",
        "≠": r"\ne ",
        "±": r"\pm ",
        "°": r"^\circ ",
        "￥": "¥",
        "θ": r"\theta ",
        "α": r"\alpha ",
    },
    **{"½": r"\frac{1}{2}", "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}"},
    **{"【": "[", "】": "]", "《": "<", "》": ">", "\u00a0": " ", "\u2009": " ", "\u202f": " "},
}
_TO_PLAIN = str.maketrans(_SIGNS)

# What is only typography: fonts, sizes, thin spaces, and the words that make brackets grow.
_TYPOGRAPHY = re.compile(
    r"\\(?:left|right|[bB]igg?[lr]?)(?![a-zA-Z])(?:\.(?!\d))?"
    r"|\\(?:displaystyle|textstyle|limits|quad|qquad)(?![a-zA-Z])|(?<!\\)\\[,;:!]|\*\*(?=\s*$)|^\s*\*\*"
)
_FONT = re.compile(r"\\(?:text(?:bf|it|rm|normal)?|mathrm|mathbf|mathit|mbox|operatorname)\s*\{([^{}\\]*)\}")
_BARE_WORDS = ("arcsin", "arccos", "arctan", "sin", "cos", "tan", "cot", "sec", "csc", "log", "ln", "exp", "sqrt", "pi")
_BARE_FUNCTION = re.compile(rf"(?<![\\a-zA-Z])({'|'.join(_BARE_WORDS)})(?![a-zA-Z])")
_SQRT_OF_BRACKET = re.compile(r"\\sqrt\s*\(([^()]*)\)")
_LEADING_WORDS = re.compile(
    r"^(?:so |thus |hence |therefore,? )?(?:the )?(?:final )?answer(?: is)?\s*:?\s+(?=\S)"
    r"|^(?:所以)?(?:最终)?答案?(?:是|为)?\s*:?\s*",
    re.IGNORECASE,
)
_THOUSANDS = re.compile(r"(?<![0-9.,])[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])")
_WRAPPERS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"))
_DIGIT_RUN = re.compile(rf"[0-9]{{{MAX_DIGITS + 1}}}")
_NUMBER_AFTER_POWER = re.compile(r"(?:\^|\*\*)\s*\{?\s*[+-]?\s*([0-9]+)")
_TOWER = re.compile(r"(?:\^|\*\*)[\s{(+-]*[0-9]+\s*(?:\^|\*\*)")
_POWER_OF_POWER = re.compile(r"[})]\s*(?:\^|\*\*)")
_BIG_FACTORIAL = re.compile(r"[0-9]{4,}[\s})]*!|!\s*[})]*\s*!|\\Gamma\D{0,9}[0-9]{4}")
_BIG_CHOICE = re.compile(r"\\[dt]?binom[^}]*[0-9]{4}")


def danger(text: str) -> str | None:
    """Why `text` is not to be computed with, in a few words; None where it may be. Its time is linear in the text."""
    text = text.strip().strip("*")  # bold in Markdown
    if len(text) > MAX_MATH_CHARS:
        return f"more than {MAX_MATH_CHARS} characters"
    if any(not (character.isprintable() or character.isspace()) for character in text):
        return "control characters"
    if depth_of(text) > MAX_DEPTH:
        return f"brackets more than {MAX_DEPTH} deep"
    if _DIGIT_RUN.search(text):
        return f"a number of more than {MAX_DIGITS} digits"
    if text.count("^") + text.count("!") > MAX_POWERS:
        return f"more than {MAX_POWERS} powers"
    exponents = _NUMBER_AFTER_POWER.findall(text)
    if any(len(exponent) > 3 for exponent in exponents):
        return "a power of more than three digits"
    in_turn = _POWER_OF_POWER.search(text) and math.prod(int(exponent) or 1 for exponent in exponents) >= 1000
    if _TOWER.search(text) or in_turn:
        return "a tower of powers"
    if text.count(r"\cup") + text.count("∪") > MAX_UNIONS:
        return f"more than {MAX_UNIONS} unions"
    if _BIG_FACTORIAL.search(text) or _BIG_CHOICE.search(text):
        return "a factorial out of bounds"
    return None


def depth_of(text: str) -> int:
    """How deep the brackets of `text` go; a closing bracket without an opening one counts as depth 0."""
    depth = deepest = 0
    for character in text:
        if character in _OPENING:
            depth += 1
            deepest = max(deepest, depth)
        elif character in _CLOSING:
            depth = max(0, depth - 1)
    return deepest


def is_balanced(text: str) -> bool:
    """Whether every bracket closes; round and square ones may close each other, as half-open intervals do."""
    open_braces: list[bool] = []
    for character in text:
        if character in _OPENING:
            open_braces.append(character == "{")
        elif character in _CLOSING:
            if not open_braces or open_braces.pop() != (character == "}"):
                return False
    return not open_braces


def plain_math(text: str) -> str:
    r"""`text` without what is only spelling: `$\dfrac12$.` gives `\frac12`, `（１，２）` gives `(1,2)`."""
    plain = _unwrapped(text.translate(_TO_PLAIN).strip())
    plain = _LEADING_WORDS.sub("", plain, count=1)
    plain = _TYPOGRAPHY.sub("", _FONT.sub(r" \1 ", plain))
    plain = plain.replace("{,}", ",").replace("~", " ").replace(r"\%", "%").replace(r"\$", "$")
    plain = re.sub(r"(?<!\\)\\ ", " ", plain)
    plain = re.sub(r"\\[dtc]frac(?![a-zA-Z])", r"\\frac", plain)
    plain = re.sub(r"\\(leq|geq|neq)(?![a-zA-Z])", lambda match: f"\\{match.group(1)[:2]} ", plain)
    plain = re.sub(r"\^\s*\{\s*\\circ\s*\}|\\degree(?![a-zA-Z])|\\circ(?![a-zA-Z])(?<!\^\\circ)", r"^\\circ", plain)
    plain = _SQRT_OF_BRACKET.sub(r"\\sqrt{\1}", _BARE_FUNCTION.sub(r"\\\1 ", plain).replace(r"\sqrt  ", r"\sqrt "))
    plain = _unwrapped(" ".join(plain.split()).replace(" ^", "^"))
    return plain.rstrip(".,;").strip() if not plain.endswith("...") else plain


def _unwrapped(text: str) -> str:
    """`text` out of dollar signs, display brackets and a box, where they stand around the whole of it."""
    for _ in range(3):
        text = text.strip()
        core = text.rstrip(".").rstrip()
        for opening, closing in _WRAPPERS:
            inside = core[len(opening) : -len(closing)]
            if len(core) > len(opening) + len(closing) and core.startswith(opening) and core.endswith(closing):
                if opening not in inside and closing not in inside:
                    text = inside
                    break
        inside = core[len(r"\boxed{") : -1]
        if core.startswith(r"\boxed{") and core.endswith("}") and is_balanced(inside):
            text = inside
    return text


@dataclass(frozen=True, slots=True)
class WrittenList:
    """The items of a list as written, and its brackets: "" for none, or two of them such as "()" , "[)" or "{}"."""

    brackets: str
    items: tuple[str, ...]


def split_list(text: str) -> WrittenList:
    r"""How `text`, in plain spelling, is made up at its outermost level: `\{1, 2\}` gives ("{}", ("1", "2")).

    A bracket that closes before the end is no bracket of the whole: `(x+1)(x+2)` is one item without brackets.
    """
    core = text.replace(r"\{", "{").replace(r"\}", "}") if text.startswith(r"\{") else text
    if len(core) >= 2 and core[0] in _OPENING and core[-1] in _CLOSING and is_balanced(core[1:-1]):
        as_set = text.startswith(r"\{")
        if core[0] != "{" or as_set:
            return WrittenList(core[0] + core[-1], _items(core[1:-1]))
    joined = re.sub(r"\s*,?\s+(?:and|or)\s+|\s*[和或]\s*", ", ", text)
    # Without brackets 1,200 is a number; within them (1,200) is a point.
    return WrittenList("", _items(_THOUSANDS.sub(lambda match: match.group().replace(",", ""), joined)))


def _items(text: str) -> tuple[str, ...]:
    """`text` cut at the commas and semicolons that no bracket holds."""
    items, depth, start = [], 0, 0
    for position, character in enumerate(text):
        if character in _OPENING:
            depth += 1
        elif character in _CLOSING:
            depth -= 1
        elif character in ",;" and depth == 0:
            items.append(text[start:position].strip())
            start = position + 1
    items.append(text[start:].strip())
    return tuple(items)
