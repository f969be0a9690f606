r"""Parses plain quantities: a written number with its percent sign, currency or unit, as an exact value.

Without any algebra it reads: 1,200 · -3/4 · \frac{3}{4} · 2 1/2 · 1.5e3 · 3\times10^{-2} · 50% · $5.00 · 30 mm · 90^\circ ·
三分之二 · 一百二十元. Values are exact fractions. Our rules for the equality of two quantities:

- nothing is rounded: 0.333333 is not 1/3;
- a noun ("18 apples") is optional; if both have one, the words of one must include those of the other;
- a percent sign is optional if the number is the same (50 for 50%: the question asked for percent), and 50% equals 0.5. A currency
  or unit is optional, too; if both have one, the amounts must be equal: 30 mm is 3 cm;
- a mixed number is an integer followed by a proper fraction: 2 1/2 is 5/2.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from r1_lightning.text.units import SCALES, Unit, noun_of, unit_of

MAX_EXPONENT = 400  # power of ten: larger than any number in science, and cheap to compute
MAX_QUANTITY_CHARS = 100

_N = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,3}(?: [0-9]{3})+|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+"
_FRACTION = r"\\frac\s*(?:\{\s*([0-9]+)\s*\}\s*\{\s*([0-9]+)\s*\}|([0-9])\s*([0-9]))|([0-9]+)\s*/\s*([0-9]+)"
_POWER = r"[+-]?[0-9]{1,4}|\{\s*[+-]?\s*[0-9]{1,4}\s*\}"
_VALUE = re.compile(
    r"(?P<sign>[+-]?)\s*(?P<money>[$€£¥]?)\s*(?P<sign2>[+-]?)\s*(?:"
    rf"(?P<mixed>[0-9]+)\s*(?P<gap>\s|(?=\\))(?:{_FRACTION})"
    rf"|(?:{_FRACTION})"
    rf"|10\s*\^\s*(?P<power>{_POWER})"
    rf"|(?P<number>{_N})(?:[eE](?P<e>[+-]?[0-9]{{1,4}})|\s*(?:\\times|\\cdot|\*)\s*10\s*\^\s*(?P<ten>{_POWER}))?)"
    r"(?P<rest>.*)",
    re.DOTALL,
)
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([a-zA-Z]+|\^\\circ|''|')")
_SEVERAL = re.compile(
    rf"{_PART.pattern}(?:(?:\s*,)?\s*(?:and\s+)?{_PART.pattern})+".replace("(", "(?:").replace("(?:?:", "(?:")
)
_MINUTES = {"'": ("angle", Fraction(1, 60)), "''": ("angle", Fraction(1, 3600))}
_PERCENT = re.compile(r"\s*(?:%|percent|per cent|pct)\s*", re.IGNORECASE)
_DIGITS = {character: value for value, character in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2}
_TENS = {"十": 10, "百": 100, "千": 1000}
_CHINESE = r"[零〇一二两三四五六七八九十百千万亿]+(?:点[零〇一二三四五六七八九]+)?"
_CHINESE_NUMBER = re.compile(
    rf"^(?P<minus>负?)(?:(?P<percent>百分之)|(?:(?P<and>{_CHINESE})又)?(?P<below>{_CHINESE})分之)?(?P<main>{_CHINESE})"
)


@dataclass(frozen=True, slots=True)
class Quantity:
    """A quantity: the `number` as written, `percent` if a percent sign follows, its `unit`, or the words of a `noun` after it."""

    number: Fraction
    percent: bool = False
    unit: Unit | None = None
    noun: frozenset[str] = frozenset()


def parse_quantity(text: str) -> Quantity | None:
    """Parse `text`, in the plain spelling of `text.math_text`, as a quantity; None for anything else."""
    if len(text) > MAX_QUANTITY_CHARS:
        return None
    if _SEVERAL.fullmatch(text.strip()):
        return _together(text)
    match = _VALUE.fullmatch(_with_digits(text.strip()))
    if match is None or (match["sign"] and match["sign2"]):
        return None
    value = _value(match)
    if value is None:
        return None
    value = -value if "-" in (match["sign"], match["sign2"]) else value
    value, rest = _scaled(value, match["rest"])
    if percent := _PERCENT.fullmatch(rest):
        return Quantity(value, percent=True) if percent and not match["money"] else None
    unit = unit_of(rest.strip()) if rest.strip() else None
    if match["money"]:
        money = unit_of(match["money"])
        return Quantity(value, unit=money) if not rest.strip() or unit == money else None
    if rest.strip() and unit is None:
        noun = noun_of(rest)
        return None if noun is None else Quantity(value, noun=noun)
    return Quantity(value, unit=unit)


def _together(text: str) -> Quantity | None:
    """Parse 1 hour 30 minutes, 12 dollars and 50 cents, 45^\\circ 30': the sum of amounts of one dimension, in the last unit."""
    parts = [(Fraction(number), _MINUTES.get(name) or unit_of(name)) for number, name in _PART.findall(text)]
    units = [unit for _, unit in parts if unit is not None]
    if len(units) < len(parts) or len({kind for kind, _ in units}) > 1 or not units[0][0]:
        return None
    sizes = [unit[1] / units[-1][1] for unit in units]
    total = sum((number * size for (number, _), size in zip(parts, sizes, strict=True)), Fraction(0))
    return Quantity(total, unit=units[-1])


def _scaled(value: Fraction, rest: str) -> tuple[Fraction, str]:
    """Multiply `value` by the thousand or million with which `rest` begins."""
    word, _, others = rest.strip().partition(" ")
    return (value * SCALES[word], f" {others}" if others else "") if word in SCALES else (value, rest)


def same_quantity(given: Quantity, reference: Quantity) -> bool:
    """True if both are the same amount by the rules above."""
    if given.noun or reference.noun:
        nouns_agree = given.noun <= reference.noun or reference.noun <= given.noun
        measured = (given.unit and given.unit[0]) or (reference.unit and reference.unit[0])
        if not nouns_agree or measured or given.percent or reference.percent:
            return False
    if given.unit and reference.unit and (given.unit[0] or reference.unit[0]):
        kinds_agree = given.unit[0] == reference.unit[0]
        return kinds_agree and given.number * given.unit[1] == reference.number * reference.unit[1]
    if given.number == reference.number:
        # "5 m" for "5%" has another dimension; a bare number has none.
        return not (given.unit and reference.percent) and not (given.percent and reference.unit)
    if given.percent == reference.percent or given.unit or reference.unit:
        return False
    return _amount(given) == _amount(reference)


def _amount(quantity: Quantity) -> Fraction:
    return quantity.number / 100 if quantity.percent else quantity.number


def _value(match: re.Match[str]) -> Fraction | None:
    parts = [group for group in _fraction_groups(match) if group]
    if parts:
        above, below = int(parts[0]), int(parts[1])
        if below == 0:
            return None
        if match["mixed"] is None:
            return Fraction(above, below)
        return int(match["mixed"]) + Fraction(above, below) if above < below else None
    if match["power"]:
        return _ten_to(match["power"])
    number = Fraction(_decimal(match["number"]))
    exponent = match["e"] or match["ten"]
    scale = _ten_to(exponent) if exponent else Fraction(1)
    return None if scale is None else number * scale


def _fraction_groups(match: re.Match[str]) -> list[str | None]:
    named = set(match.re.groupindex.values())
    return [match[index] for index in range(1, match.re.groups + 1) if index not in named]


def _decimal(text: str) -> str:
    plain = text.replace(",", "").replace(" ", "")
    return plain.removesuffix(".") if not plain.startswith(".") else f"0{plain}"


def _ten_to(text: str) -> Fraction | None:
    exponent = int(text.strip("{} ").replace(" ", ""))
    return Fraction(10) ** exponent if abs(exponent) <= MAX_EXPONENT else None


_UNIT_AT_END = re.compile(
    r"(?<=[\s0-9})])\s*("
    r"(?:(?:square|cubic|sq\.?|cu\.?) )?[a-zA-Z]{1,11}(?:\^(?:\{[23]\}|[23])| squared| cubed)?|[\u3400-\u9fff]{1,4})\.?$"
)
_LETTER = re.compile(r"(?<![a-zA-Z\\])[a-zA-Z]")


def split_unit(text: str) -> tuple[str, Unit | None]:
    r"""Split off the unit at the end of `text`: `3\sqrt{2} cm` gives (`3\sqrt{2}`, centimetres).

    Only for a number without letters: in `3x m` the m may be a factor.
    """
    match = _UNIT_AT_END.search(text)
    if match is None or (unit := unit_of(match[1])) is None:
        return text, None
    value = text[: match.start()].strip()
    return (value, unit) if value and not _LETTER.search(value) else (text, None)


def _with_digits(text: str) -> str:
    """Replace a Chinese number at the start of `text` by digits."""
    text = re.sub("^(?:一共|总共|共)?有(?=.*[0-9零〇一二两三四五六七八九十百])", "", text)
    match = _CHINESE_NUMBER.match(text)
    if match is None:
        return text
    main, below = chinese_number(match["main"]), chinese_number(match["below"]) if match["below"] else None
    if main is None or (match["below"] and below is None):
        return text
    sign, rest = "-" if match["minus"] else "", text[match.end() :]
    if match["below"]:
        whole = f"{chinese_number(match['and'])} " if match["and"] else ""
        return f"{sign}{whole}{main}/{below}{rest}"
    return f"{sign}{main}{'%' if match['percent'] else ''}{rest}"


def chinese_number(text: str) -> str | None:
    """Convert Chinese numerals to ASCII digits: 一万零三 gives 10003, 三点一四 gives 3.14."""
    whole, point, decimals = text.partition("点")
    if point:
        if not all(character in _DIGITS for character in decimals) or (head := chinese_number(whole)) is None:
            return None
        return f"{head}.{''.join(str(_DIGITS[character]) for character in decimals)}"
    if whole and all(character in _DIGITS for character in whole):  # digit by digit: 二〇二四
        return "".join(str(_DIGITS[character]) for character in whole)
    total = section = digit = 0
    for character in whole:
        if character in _DIGITS:
            digit = _DIGITS[character]
        elif character in _TENS:
            section += (digit or 1) * _TENS[character]
            digit = 0
        else:
            section, digit = section + digit, 0
            if character == "万":
                total, section = total + section * 10**4, 0
            else:
                total, section = (total + section) * 10**8, 0
    return str(total + section + digit) if whole else None
