r"""Extracts the equations of a chain of thought in canonical spelling; they identify a solution path.

Rejection-sampling fine-tuning (Yuan et al. 2023, arXiv:2308.01825, section 3.3 and Algorithm 1) keeps one path per distinct list
of equations. There the equations are GSM8K's calculator annotations (`<<48/2=24>>`); here they are extracted from the text,
annotated or not: an *equation* is a calculation with numbers and the number to which the text equates it. `12*3+5=36+5=41` has
two, 12*3+5=41 and 36+5=41; `12*3=36=36.0` has one. The canonical spelling unifies spaces, signs (× ÷ − and their LaTeX names),
full-width forms, commas between thousands, dollar signs, and zeros after a decimal point; as in the paper, the order of operands
matters.

Equations between letters (x+y=3) are not calculations and do not count. The scan is linear in the text.
"""

from __future__ import annotations

import re
import unicodedata

_SIGNS = str.maketrans({**dict.fromkeys("×⋅·", "*"), **dict.fromkeys("÷∕", "/"), **dict.fromkeys("−–", "-"), "$": ""})
_LATEX = {
    **{r"\times": "*", r"\cdot": "*", r"\div": "/"},
    **{r"\left": "", r"\right": "", r"\,": "", r"\(": " ", r"\)": " ", "\\ ": " "},
}
_BULLET = re.compile(r"^[ \t]*[-*+•][ \t]+", re.MULTILINE)
_NOTE = re.compile(r"<<[^<>\n]*>>")
_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])")
_GAP = re.compile(r"(?<=[\d()+*/%^=-])[ \t]{1,8}(?=[\d()+*/%^=.-])")
# A run of calculations and equals signs, split at these; a letter directly before it makes it algebra.
_CHAIN = re.compile(r"(?<![\w()+*/%^.-])[\d(+.-][\d()+*/%^.-]*(?:=[\d(+.-][\d()+*/%^.-]*)+")
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)%?")
_DECIMAL = re.compile(r"\d+\.\d*")
_CALCULATION = re.compile(r"[\d)%]\s*[+*/^-]")


def equations(text: str) -> tuple[str, ...]:
    """Return the equations of `text` in order, repetitions included: ("12*3=36", "36+5=41")."""
    found: list[str] = []
    for chain in _CHAIN.findall(_plain(text)):
        sides = [side.strip(".") for side in chain.split("=")]
        value, own = None, []
        for side in reversed(sides):  # a calculation equals the next side that is a plain number
            if _NUMBER.fullmatch(side):
                value = side
            elif value is not None and _CALCULATION.search(side):
                own.append(f"{_short(side)}={_short(value)}")
        found += reversed(own)
    return tuple(found)


def _plain(text: str) -> str:
    plain = _BULLET.sub("", _NOTE.sub("", unicodedata.normalize("NFKC", text))).replace("\\$", "").translate(_SIGNS)
    for name, sign in _LATEX.items():
        plain = plain.replace(name, sign)
    plain = _THOUSANDS.sub(lambda match: match.group().replace(",", ""), plain)
    return _GAP.sub("", plain)


def _short(side: str) -> str:
    """Remove redundant zeros and points from `side`: 36.50 becomes 36.5, 36.0 and 36. become 36."""
    return _DECIMAL.sub(lambda match: match.group().rstrip("0").rstrip("."), side).lstrip("+")
