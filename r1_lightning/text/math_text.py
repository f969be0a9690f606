r"""Normalises written mathematics, and parses the structure of lists, sets and intervals.

The same answer has many spellings: `\dfrac{1}{2}`, `½`, `$\frac12$`, `１／２`. `plain_math` removes all that is only spelling
(full-width forms, typographic signs, dollar signs, `\text`, spacing, a box around the whole) and keeps everything with a meaning.
`split_list` returns the structure of a list: `(1,2)` is ordered, `\{1,2\}` is not, `[1,2)` is an interval.

Call `danger` on every model-written text before a parser or an algebra system sees it: it bounds length, depth, digits and
powers, so that nearly every text that passes costs a computer algebra system little. `rewards.verifiers.pool` kills the remaining
cases.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction

MAX_MATH_CHARS = 400  # the longest references of MATH, matrices included, have about 200
MAX_DEPTH = 10  # of nested brackets; the parser's time grows steeply with the depth
MAX_DIGITS = 40  # of one number
MAX_EXPONENT_DIGITS = 4
MAX_POWERS = 12  # power signs and factorials of one answer

MAX_UNIONS = 8  # of intervals

_OPENING, _CLOSING = "([{", ")]}"

_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿⁱ", "0123456789+-ni")
_LOWERED = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_RAISED_RUN, _LOWERED_RUN = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿⁱ]+"), re.compile("[₀₁₂₃₄₅₆₇₈₉]+")
_SIGNS = {
    **{chr(code): chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)},  # the full-width forms of ASCII
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
        "⩽": r"\le ",
        "⩾": r"\ge ",
        "≦": r"\le ",
        "≧": r"\ge ",
        "′": "'",
        "≥": r"\ge ",
        "≠": r"\ne ",
        "±": r"\pm ",
        "°": r"^\circ ",
        "￥": "¥",
        "θ": r"\theta ",
        "α": r"\alpha ",
        "β": r"\beta ",
        "∨": " or ",
        "∧": " and ",
    },
    **{"½": r"\frac{1}{2}", "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}"},
    **{"【": "[", "】": "]", "《": "<", "》": ">", "\u00a0": " ", "\u2009": " ", "\u202f": " "},
}
_TO_PLAIN = str.maketrans(_SIGNS)

# Typography without meaning: fonts, sizes, thin spaces, and the commands that enlarge brackets.
_TYPOGRAPHY = re.compile(
    r"\\(?:left|right|[bB]igg?[lr]?)(?![a-zA-Z])(?:\.(?!\d))?"
    r"|\\(?:displaystyle|textstyle|limits|quad|qquad)(?![a-zA-Z])|(?<!\\)\\[,;:!]|\*\*(?=\s*$)|^\s*\*\*"
)
_FONT = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|up|normal)?|math(?:rm|bf|it|sf)|boldsymbol|mbox|operatorname\*?)\s*\{((?:[^{}\\]|\\[ ,;])*)\}"
)
_BARE_WORDS = ("arcsin", "arccos", "arctan", "sin", "cos", "tan", "cot", "sec", "csc", "log", "ln", "exp", "sqrt", "pi")
_BARE_FUNCTION = re.compile(rf"(?<![\\a-zA-Z])({'|'.join(_BARE_WORDS)})(?![a-zA-Z])")
_SQRT_OF_BRACKET = re.compile(r"\\sqrt\s*\(([^()]*)\)")
_BRACKETS = {"lbrace": r"\{", "rbrace": r"\}", "lbrack": "[", "rbrack": "]", "lvert": "|", "rvert": "|", "vert": "|",
             "lparen": "(", "rparen": ")"}  # fmt: skip
_BRACKET_NAMES = re.compile(rf"\\({'|'.join(_BRACKETS)})(?![a-zA-Z])\s*")
_TEX = {"over": r"\frac", "choose": r"\binom"}  # plain TeX's infix commands
_OVER = re.compile(r"\{\s*([^{}]+?)\s*\\(over|choose)(?![a-zA-Z])\s*([^{}]+?)\s*\}")
_SIGN_NAMES = re.compile(r"\\(le|ge|ne)q?(?:slant|q)?(?![a-zA-Z])")
_REPEATING = re.compile(
    r"(?<![0-9.])(?P<whole>[0-9]{0,15})\.(?P<fixed>[0-9]{0,15})\\(?:overline|bar|dot)\s*"
    r"(?:\{\s*(?P<braced>[0-9]{1,15})\s*\}|(?P<bare>[0-9]))(?:(?P<inner>[0-9]{0,12})\\dot\s*\{?(?P<last>[0-9])\}?)?(?![0-9\\])"
)
_IDLE_SPACE = re.compile(r"(?<![0-9a-zA-Z])\s+|\s+(?![0-9a-zA-Z])")
_SHORT_ABOVE, _SHORT_BELOW = re.compile(r"\\frac\s*([0-9a-zA-Z])"), re.compile(r"(\\frac\{[^{}]*\})\s*([0-9a-zA-Z])")
_INTEGRAL = re.compile(r"(\\int(?![a-zA-Z]).*?)\s*d\s*([a-z])")
_SHORT_SCRIPT = re.compile(r"([_^])\s*([0-9]+|[a-zA-Z])")
_SHORT_ROOT = re.compile(r"\\sqrt\s*([0-9a-zA-Z])")
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
    """Return why `text` must not go to an algebra system, in a few words; None if it may. Linear time."""
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
    if any(len(exponent) > MAX_EXPONENT_DIGITS for exponent in exponents):
        return f"a power of more than {MAX_EXPONENT_DIGITS} digits"
    in_turn = _POWER_OF_POWER.search(text) and math.prod(int(exponent) or 1 for exponent in exponents) >= 1000
    if _TOWER.search(text) or in_turn:
        return "a tower of powers"
    if text.count(r"\cup") + text.count("∪") > MAX_UNIONS:
        return f"more than {MAX_UNIONS} unions"
    if _BIG_FACTORIAL.search(text) or _BIG_CHOICE.search(text):
        return "a factorial out of bounds"
    return None


def depth_of(text: str) -> int:
    """Return the depth of the nested brackets of `text`; an unmatched closing bracket does not count."""
    depth = deepest = 0
    for character in text:
        if character in _OPENING:
            depth += 1
            deepest = max(deepest, depth)
        elif character in _CLOSING:
            depth = max(0, depth - 1)
    return deepest


def is_balanced(text: str) -> bool:
    """True if every bracket is closed; round and square brackets may close each other, as in half-open intervals."""
    open_braces: list[bool] = []
    for character in text:
        if character in _OPENING:
            open_braces.append(character == "{")
        elif character in _CLOSING:
            if not open_braces or open_braces.pop() != (character == "}"):
                return False
    return not open_braces


def plain_math(text: str) -> str:
    r"""Remove everything from `text` that is only spelling: `$\dfrac12$.` gives `\frac12`, `（１，２）` gives `(1,2)`."""
    plain = _unwrapped(_one_character_signs(text).strip())
    plain = _LEADING_WORDS.sub("", plain, count=1)
    plain = _TYPOGRAPHY.sub("", _FONT.sub(r" \1 ", plain))
    plain = plain.replace("{,}", ",").replace("~", " ").replace(r"\%", "%").replace(r"\$", "$")
    plain = re.sub(r"(?<!\\)\\ ", " ", plain)
    plain = re.sub(r"\\[dtc]frac(?![a-zA-Z])", r"\\frac", plain)
    plain = _BRACKET_NAMES.sub(lambda match: _BRACKETS[match[1]], plain)
    plain = _OVER.sub(
        lambda match: f"{_TEX[match[2]]}{{{match[1]}}}{{{match[3]}}}", re.sub(r"\\not\s*=", r"\\ne ", plain)
    )
    plain = _SIGN_NAMES.sub(lambda match: f"\\{match.group(1)} ", plain)
    plain = re.sub(r"\\(?:lor|vee)(?![a-zA-Z])", " or ", re.sub(r"\\(?:land|wedge)(?![a-zA-Z])", " and ", plain))
    plain = re.sub(r"\\lg(?![a-zA-Z])", r"\\log_{10} ", re.sub(r"\^\s*\{?\s*(?:\\prime\s*)\}?", "'", plain))
    plain = _REPEATING.sub(_as_fraction, plain)
    plain = re.sub(r"\^\s*\{\s*\\circ\s*\}|\\degree(?![a-zA-Z])|\\circ(?![a-zA-Z])(?<!\^\\circ)", r"^\\circ", plain)
    plain = _SQRT_OF_BRACKET.sub(r"\\sqrt{\1}", _BARE_FUNCTION.sub(r"\\\1 ", plain).replace(r"\sqrt  ", r"\sqrt "))
    plain = _unwrapped(" ".join(plain.split()).replace(" ^", "^"))
    return plain.rstrip(".,;").strip() if not plain.endswith("...") else plain


def _one_character_signs(text: str) -> str:
    """Replace each single-character sign in `text` by its LaTeX spelling."""
    text = _RAISED_RUN.sub(lambda match: f"^{{{match[0].translate(_RAISED)}}}", text)
    return _LOWERED_RUN.sub(lambda match: f"_{{{match[0].translate(_LOWERED)}}}", text).translate(_TO_PLAIN)


def _as_fraction(match: re.Match[str]) -> str:
    r"""Convert a repeating decimal to its fraction: 0.1\overline{6} is 16/90 - 1/90 = 1/6."""
    whole, fixed, repeated = match["whole"] or "0", match["fixed"], match["braced"] or match["bare"]
    if match["last"]:  # dots over the first and the last repeating digit
        repeated += match["inner"] + match["last"]
    shift = 10 ** len(fixed)
    value = Fraction(int(whole + fixed), shift) + Fraction(int(repeated), shift * (10 ** len(repeated) - 1))
    return rf"\frac{{{value.numerator}}}{{{value.denominator}}}"


def spelled(text: str) -> str:
    r"""Unify LaTeX's optional braces and spaces in `text` (in plain spelling): \frac12 becomes \frac{1}{2}."""
    if match := _INTEGRAL.fullmatch(text):  # the name of the integration variable does not matter
        text = re.sub(rf"(?<![a-zA-Z\\]){match[2]}(?![a-zA-Z])", "x", match[1]) + "dx"
    text = _SHORT_BELOW.sub(r"\1{\2}", _SHORT_ABOVE.sub(r"\\frac{\1}", text))
    text = _SHORT_ROOT.sub(r"\\sqrt{\1}", _SHORT_SCRIPT.sub(r"\1{\2}", text))
    return _IDLE_SPACE.sub("", re.sub(r"\\(?:cdot|times)(?![a-zA-Z])", "*", text))


def _unwrapped(text: str) -> str:
    """Remove dollar signs, display brackets and a box that enclose the whole of `text`."""
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
    """A parsed list: its items as written, and its brackets: "" for none, or a pair such as "()", "[)" or "{}"."""

    brackets: str
    items: tuple[str, ...]


def split_list(text: str) -> WrittenList:
    r"""Parse the outermost level of `text`, in plain spelling, as a list: `\{1, 2\}` gives ("{}", ("1", "2")).

    A bracket that closes before the end does not enclose the list: `(x+1)(x+2)` is one item without brackets.
    """
    as_set = text.startswith(r"\{")
    core = text.removeprefix("\\") if as_set else text
    inside = core[1:-1].removesuffix("\\") if as_set else core[1:-1]
    if len(core) >= 2 and core[0] in _OPENING and core[-1] in _CLOSING and is_balanced(inside):
        items = _items(inside)
        # Braces without a backslash are LaTeX groups, but {1,2,3} can only mean a set.
        grouping = core[0] == "{" and not as_set and len(items) == 1
        return WrittenList("" if grouping else core[0] + core[-1], items)
    joined = re.sub(r"\s*,?\s+(?:and|or)\s+|\s*[和或]\s*", ", ", text)
    # Without brackets 1,200 is a number; with brackets (1,200) is a point.
    return WrittenList("", _items(_THOUSANDS.sub(lambda match: match.group().replace(",", ""), joined)))


def _items(text: str) -> tuple[str, ...]:
    """Split `text` at commas and semicolons outside brackets."""
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
