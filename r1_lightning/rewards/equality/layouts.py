r"""Parses answers with a layout or keyword of their own: matrices, systems, definitions by cases, congruences.

`rewards.equality.structure` compares the parsed cells. A matrix has ordered rows and columns; the cases of a definition and the
equations of a system have no order. A congruence is a name, residues and a modulus: x\equiv 10\pmod 7 equals x\equiv 3\pmod 7.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from r1_lightning.text.math_text import split_list

_GRID = re.compile(
    r"(?P<factor>[^\\]*?|\\frac\{[^{}]*\}\{[^{}]*\})\s*[(\[]?\s*\\begin\{(?P<kind>[pbBvV]?matrix|array|cases|aligned)\}(?:\{[^{}]*\})?"
    r"(?P<rows>.*)\\end\{(?P=kind)\}\s*(?P<end>[)\]]?)",
    re.S,
)
_IF = re.compile(r"^\s*(?:if|when|for|where)\b|[,;.]\s*$|\botherwise\b")
_MODULUS = r"(?:\\pmod\s*\{?\s*([0-9]{1,40})\s*\}?|[(,]?\s*\\?b?mod\s*\{?\s*([0-9]{1,40})\s*\}?\s*\)?)"
_CONGRUENCE = re.compile(
    rf"(?:([a-zA-Z])\s*\\equiv\s*)?([-0-9,\s]+?|[-0-9]+(?:\s*(?:,|or|and)\s*[-0-9]+)*)\s*{_MODULUS}"
)


@dataclass(frozen=True, slots=True)
class Grid:
    """A parsed layout: `rows` of cells as written, a common `factor` ("" is 1), and a `kind`: "matrix", "determinant", "cases"."""

    kind: str
    factor: str
    rows: tuple[tuple[str, ...], ...]


def read_grid(text: str) -> Grid | None:
    r"""Parse a matrix, determinant, system or cases; None for anything else."""
    match = _GRID.fullmatch(text.strip())
    if match is None:
        return None
    kind = {"vmatrix": "determinant", "Vmatrix": "determinant", "cases": "cases", "aligned": "cases"}.get(
        match["kind"], "matrix"
    )
    lines = [line for line in re.split(r"\\\\|\\cr(?![a-z])", match["rows"]) if line.strip()]
    rows = [[cell.strip() for cell in line.split("&")] for line in lines]
    if kind == "cases":
        rows = [[_IF.sub("", _IF.sub("", cell)).strip() for cell in row] for row in rows]
    return Grid(kind, match["factor"].strip(), tuple(map(tuple, rows)))


def as_system(text: str) -> str:
    r"""Rewrite a system of equations as x=2,y=1; return any other text unchanged."""
    grid = read_grid(text)
    if grid is None or grid.kind != "cases" or any(len(row) != 1 for row in grid.rows) or grid.factor:
        return text
    return ", ".join(row[0] for row in grid.rows)


def as_named(text: str) -> str:
    """Rewrite `(a,b)=(1,2)` as a=1, b=2; return any other text unchanged."""
    left, sign, right = text.partition("=")
    names, values = split_list(left.strip()), split_list(right.strip())
    if not sign or names.brackets != "()" or values.brackets != "()" or len(names.items) != len(values.items):
        return text
    if not all(re.fullmatch(r"[a-zA-Z](?:_\{?\w+\}?)?", name) for name in names.items) or len(names.items) < 2:
        return text
    return ", ".join(f"{name}={value}" for name, value in zip(names.items, values.items, strict=True))


def read_congruence(text: str) -> tuple[str, tuple[int, ...], int] | None:
    """Parse a congruence into name ("" for none), sorted residues, modulus; None for anything else."""
    match = _CONGRUENCE.fullmatch(text.strip())
    if match is None:
        return None
    modulus = int(match[3] or match[4])
    try:
        residues = [int(number.replace(" ", "")) for number in re.split(r",|or|and", match[2])]
    except ValueError:
        return None
    return (match[1] or "", tuple(sorted(number % modulus for number in residues)), modulus) if modulus else None
