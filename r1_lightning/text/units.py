"""The words after a number: units of measure with their size, and nouns for counted things.

A unit has a dimension and a size as a multiple of the dimension's base unit, so that 30 mm are 3 cm. Squares and cubes of a length
are areas and volumes, in signs (cm^2) or words (square inches). A noun ("18 apples") has no size; it names the counted things.
"""

from __future__ import annotations

import re
from fractions import Fraction

Unit = tuple[str, Fraction]  # dimension ("" for a counter), size in the dimension's base unit

_UNITS: dict[str, Unit] = {}


def _add_units(kind: str, **factors: str) -> None:
    for factor, names in factors.items():
        value = Fraction(factor.removeprefix("x").replace("_per_", "/").replace("_", "."))
        _UNITS.update(dict.fromkeys(names.split(), (kind, value)))


_add_units("length", x1="mm millimeter millimetre 毫米", x10="cm centimeter centimetre 厘米", x100="dm 分米")
_add_units("length", x1000="m meter metre 米", x1000000="km kilometer kilometre 千米 公里")
_add_units("length", x25_4="in inch inches", x304_8="ft foot feet", x914_4="yd yard", x1609344="mi mile")
_add_units("mass", x1="mg", x1000="g gram 克", x1000000="kg kilogram 千克 公斤", x1000000000="t ton tonne 吨")
_add_units("weight", x1="oz ounce", x16="lb lbs pound")
_add_units(
    "time", x1="s sec second 秒", x60="min minute 分钟", x3600="h hr hour 小时", x86400="d day 天", x604800="week 周"
)
_add_units("months", x1="month 个月", x12="year yr 年")
_add_units("volume", x1="ml mL milliliter 毫升", x1000="l L liter litre 升")
_add_units("angle", x1="^\\circ degree deg 度")
_add_units("speed", x1="mph")
_add_units("speed_metric", x5="km/h kmph", x18="m/s")
_add_units("USD", x1="cent ¢", x100="dollar $ USD")
_add_units("EUR", x100="euro €")
_add_units("GBP", x100="£")
_add_units("CNY", x1="分", x10="角", x100="元 块 ¥ yuan RMB")
_add_units("area", x100="平方厘米", x1000000="平方米")
_add_units("cubic", x1000="立方厘米", x1000000000="立方米")
_add_units("acceleration", x1="m/s^2 m/s^{2}")
_add_units("", x1="unit 个 人 只 本 棵 条 张 件 次 支 位 名 种 倍 组 份 辆 头 朵 枚 块钱 页 道 对 双 套 盒 箱 袋 瓶 杯")

SCALES = {"hundred": 100, "thousand": 1_000, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_POWER = re.compile(
    r"(?:(?P<word>square|cubic|sq\.?|cu\.?) )?(?P<name>[a-zA-Z]+)(?P<sign>\^\{?[23]\}?)?(?P<after> squared| cubed)?"
)
_PER = {"miles per hour": "mph", "kilometers per hour": "km/h", "kilometres per hour": "km/h", "meters per second": "m/s",
        "metres per second": "m/s", "km per hour": "km/h"}  # fmt: skip
_NOUN = re.compile(r"\s+-?([A-Z]?[a-z]{2,}(?:[ -][A-Za-z]+){0,3})\.?\s*")
_NO_NOUN = frozenset(
    re.findall(
        "[a-z]+",
        "or and plus minus times over divided by percent mod modulo not half third quarter dozen squared cubed more less than "
        "least most about approximately is are was to from between equal equals wrong incorrect base remainder infinity "
        "infinite if when where for then but either neither none pi sin cos tan log ln exp sqrt degrees except without choose "
        "factorial true false undefined unknown radians tenths hundredths thousandths ",
    )
) | frozenset(SCALES)


def unit_of(text: str) -> Unit | None:
    r"""Return the unit that `text` names, in singular or plural, in signs or words; None if it names none."""
    word = text.strip()
    word = _PER.get(word.casefold(), word)
    if (unit := _simple_unit(word.rstrip("."))) is not None:
        return unit
    match = _POWER.fullmatch(word.rstrip("."))
    power = match and _power("".join(match[part] or "" for part in ("word", "after", "sign")))
    if not match or not power or (unit := _simple_unit(match["name"])) is None:
        return None
    if unit[0] == "length":
        return ("area" if power == 2 else "cubic"), unit[1] ** power
    return (f"units^{power}", unit[1]) if not unit[0] else None


def _power(word: str) -> int | None:
    if any(part in word for part in ("squ", "sq", "2")):
        return 2
    return 3 if any(part in word for part in ("cub", "cu", "3")) else None


def _simple_unit(word: str) -> Unit | None:
    word = word.strip("{} ") if "^" not in word or word.startswith("^") else word
    for name in (word, word.casefold(), word.casefold().removesuffix("s"), word.casefold().removesuffix("es")):
        if name in _UNITS:
            return _UNITS[name]
    return None


def noun_of(text: str) -> frozenset[str] | None:
    """Return the words of a noun phrase with a leading space: " red apples" gives red and apple; None if `text` is not one."""
    match = _NOUN.fullmatch(text)
    if match is None:
        return None
    words = re.split("[ -]", match[1].casefold())
    if any(word in _NO_NOUN for word in words):
        return None
    return frozenset(_singular(word) for word in words)


def _singular(word: str) -> str:
    if word.endswith("ies"):
        return word[:-3] + "y"
    return word.removesuffix("es") if word.endswith(("ses", "xes", "ches", "shes")) else word.removesuffix("s")
