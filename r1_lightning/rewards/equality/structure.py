r"""Compares answers by structure: lists, points, sets, matrices, equations, down to formulas, each by its own rule.

A list without brackets is a list of solutions: order does not matter, but 1,1,2 is not 1,2. In a set repetition does not matter.
In a point and an interval order and brackets matter. An equation that names its value (x=5, f(1)=2) is compared as a name and a
value: a solved reference requires a solved answer, so 2x=10 is not x=5. `rewards.equality.relations` compares all other
equations.

`compare` takes any two texts; the other functions take text in plain spelling that passed `text.math_text.danger`. Call them in a
process that can be killed.
"""

from __future__ import annotations

import re

import sympy

from r1_lightning.rewards.equality.agreement import agree_at_points
from r1_lightning.rewards.equality.formulas import read_formula
from r1_lightning.rewards.equality.layouts import Grid, as_named, as_system, read_congruence, read_grid
from r1_lightning.rewards.equality.quick import Comparison, quick_comparison, quickly, without_name
from r1_lightning.rewards.equality.real_sets import looks_like_set, read_set, same_set
from r1_lightning.rewards.equality.relations import same_relation
from r1_lightning.text.labels import Labelled, has_relation, labelled
from r1_lightning.text.math_text import WrittenList, is_balanced, plain_math, split_list
from r1_lightning.text.quantities import split_unit

MAX_ITEMS = 30
MAX_DEPTH = 3  # of lists in lists
_SIGN_PAIR = re.compile(r"^(?P<name>[^\\]*=)?\s*(?P<middle>.*?)\s*\\pm\s*(?P<rest>[^\\].*|\\(?!pm).*)$", re.S)
_BASED = re.compile(r"\(?([+-]?[0-9A-Fa-f]+(?:\.[0-9A-Fa-f]+)?)\)?_(?:\{\s*(\w+)\s*\}|(\w+))")
_BARE_DIGITS = re.compile(r"[+-]?[0-9A-F]+(?:\.[0-9A-F]+)?")


def compare(given: str, reference: str) -> Comparison:
    """Compare `given` with `reference`. May take as long as sympy takes, and raise what sympy raises."""
    quick = quick_comparison(given, reference)
    return quick if quick is not None else by_structure(plain_math(given), plain_math(reference))


def by_structure(given: str, reference: str, depth: int = 0) -> Comparison:
    """Compare two answers, and name the kind of comparison; `depth` counts the lists around them."""
    given, reference = without_name(given, reference)
    (given, theirs_unit), (reference, our_unit) = split_unit(given), split_unit(reference)
    if theirs_unit and our_unit and theirs_unit != our_unit:
        return Comparison(False, "another unit")
    quick = quickly(given, reference)
    if quick is not None and (quick.same or quick.why != "words"):
        return quick
    if not (is_balanced(given) and is_balanced(reference)):
        return Comparison(False, "unbalanced brackets")
    if (same := _same_based(given, reference)) is not None:
        return Comparison(same, "numbers with a base")
    if "mod" in reference:
        classes = read_congruence(given), read_congruence(reference)
        return Comparison(None not in classes and classes[0] == classes[1], "congruences")
    if "\\begin" in given or "\\begin" in reference:
        given, reference = as_system(given), as_system(reference)
    if "\\begin" in given or "\\begin" in reference:
        return Comparison(_same_grid(given, reference, depth), "matrices and cases")
    if (compared := _as_sets(given, reference)) is not None:
        return compared
    return _as_lists(given, reference, depth)


def _same_based(given: str, reference: str) -> bool | None:
    """Compare numbers with a base by digits and base; an answer without a base is read in the reference's base."""
    ours, theirs = _BASED.fullmatch(reference), _BASED.fullmatch(given)
    if theirs and not ours:
        return _digits(theirs[1]) == _digits(reference) and (theirs[2] or theirs[3]) == "10"
    if ours and not theirs:
        return _BARE_DIGITS.fullmatch(given) is not None and _digits(given) == _digits(ours[1])
    if ours and theirs:
        return _digits(theirs[1]) == _digits(ours[1]) and (theirs[2] or theirs[3]) == (ours[2] or ours[3])
    return None


def _digits(text: str) -> str:
    return text.strip().upper().removeprefix("+").lstrip("0") or "0"


def _same_grid(given: str, reference: str, depth: int) -> bool:
    theirs, ours = read_grid(given), read_grid(reference)
    if not (theirs and ours) or theirs.kind != ours.kind or depth > MAX_DEPTH:
        return False
    if list(map(len, theirs.rows)) != list(map(len, ours.rows)) or sum(map(len, ours.rows)) > MAX_ITEMS:
        return False
    if ours.kind == "cases":
        table = [[_same_in_order(a, b, depth + 1) for b in ours.rows] for a in theirs.rows]
        return theirs.factor == ours.factor and _matching(table)
    return _same_in_order(_entries(theirs), _entries(ours), depth + 1)


def _entries(grid: Grid) -> tuple[str, ...]:
    factor = f"({grid.factor})\\cdot " if grid.factor not in ("", "-") else ""
    factor = "-" if grid.factor == "-" else factor
    return tuple(f"{factor}({cell})" if factor else cell for row in grid.rows for cell in row)


def _as_sets(given: str, reference: str) -> Comparison | None:
    """Compare as sets of real numbers if one side can be nothing else; None if the reference is not a readable set."""
    if not (looks_like_set(given) or looks_like_set(reference)):
        return None
    ours = read_set(reference)
    if ours is None:
        return None
    theirs = read_set(given)
    return Comparison(theirs is not None and same_set(theirs, ours), "sets of numbers")


# ---------------------------------------------------------------------------------------------------------------- lists


def _as_lists(given: str, reference: str, depth: int) -> Comparison:
    if "=" in given and "=" in reference:
        given, reference = as_named(given), as_named(reference)
    theirs, ours = _as_list(given), _as_list(reference)
    if max(len(theirs.items), len(ours.items)) > MAX_ITEMS:
        return Comparison(False, f"more than {MAX_ITEMS} items")
    if len(theirs.items) == len(ours.items) == 1 and {theirs.brackets, ours.brackets} <= {"", "()"}:
        return _as_formulas(theirs.items[0], ours.items[0], depth)
    if depth > MAX_DEPTH:
        return Comparison(False, "lists too deep")
    if has_relation(given + reference) and 1 in (len(theirs.items), len(ours.items)):
        return _as_formulas(given, reference, depth)
    theirs = _named_point(theirs, ours)
    may_lack = {theirs.brackets, ours.brackets} == {"{}", ""} and (depth == 0 or len(ours.items) > 1)
    if theirs.brackets != ours.brackets and not may_lack:
        return Comparison(False, f"brackets {theirs.brackets or 'none'} for {ours.brackets or 'none'}")
    if ours.brackets not in ("{}", ""):
        return Comparison(_same_in_order(theirs.items, ours.items, depth + 1), "items of a list")
    is_set = theirs.brackets == ours.brackets == "{}"
    return Comparison(_same_items(theirs.items, ours.items, depth + 1, is_set), "items of a list")


def _as_list(text: str) -> WrittenList:
    r"""Parse `text` as a list; `a \pm b` has two items."""
    if (match := _SIGN_PAIR.match(text)) and r"\pm" not in match["middle"] and "," not in text:
        name, middle, rest = match["name"] or "", match["middle"], match["rest"]
        return WrittenList("", (f"{name}{middle}+{rest}" if middle else f"{name}{rest}", f"{name}{middle}-{rest}"))
    return split_list(text)


def _named_point(given: WrittenList, reference: WrittenList) -> WrittenList:
    """Read `x=1, y=2` as the point (1,2) if the reference is a point and the names are in order."""
    named = [labelled(item) for item in given.items]
    if given.brackets or reference.brackets != "()" or not all(name and name.simple for name in named):
        return given
    labels = [name.label for name in named if name]
    in_order = labels == sorted(labels) and len(set(labels)) == len(labels)
    return WrittenList("()", tuple(name.value for name in named if name)) if in_order else given


def _same_items(theirs: tuple[str, ...], ours: tuple[str, ...], depth: int, is_set: bool) -> bool:
    """True if each item of one list is an item of the other; one to one, except for sets."""
    table = [[by_structure(plain_math(a), plain_math(b), depth).same for b in ours] for a in theirs]
    if is_set:
        return all(map(any, table)) and all(map(any, zip(*table, strict=True)))
    return len(theirs) == len(ours) and _matching(table)


def _matching(table: list[list[bool]]) -> bool:
    """True if a perfect matching of rows and columns exists (augmenting paths)."""
    owner: dict[int, int] = {}

    def place(row: int, seen: set[int]) -> bool:
        for column, fits in enumerate(table[row]):
            if fits and column not in seen:
                seen.add(column)
                if column not in owner or place(owner[column], seen):
                    owner[column] = row
                    return True
        return False

    return all(place(row, set()) for row in range(len(table)))


def _same_in_order(theirs: tuple[str, ...], ours: tuple[str, ...], depth: int) -> bool:
    pairs = zip(theirs, ours, strict=False)
    return len(theirs) == len(ours) and all(by_structure(plain_math(a), plain_math(b), depth).same for a, b in pairs)


# -------------------------------------------------------------------------------------------------- equations, formulas


def _as_formulas(given: str, reference: str, depth: int) -> Comparison:
    theirs, ours = has_relation(given), has_relation(reference)
    if theirs and ours:
        return Comparison(_same_equation(given, reference, depth), "relations")
    if theirs or ours:
        return _worked_out(given, reference, depth) if depth <= MAX_DEPTH else Comparison(False, "a relation and none")
    agree = agree_at_points(read_formula(given), read_formula(reference))
    return Comparison(bool(agree), "formulas" if agree is not None else "not readable as formulas")


def _same_equation(given: str, reference: str, depth: int) -> bool:
    theirs, ours = labelled(given), labelled(reference)
    if theirs and ours and theirs.label == ours.label and depth <= MAX_DEPTH:
        values = by_structure(plain_math(theirs.value), plain_math(ours.value), depth + 1)
        if values.same or not ours.simple:
            return values.same and _holds(theirs)
    elif theirs and ours and not (theirs.simple or theirs.expression or ours.simple or ours.expression):
        return False
    if ours and ours.simple and _is_constant(ours.value):
        return False  # the reference is solved, but the answer has another name or is not solved
    return same_relation(given, reference)


def _worked_out(given: str, reference: str, depth: int) -> Comparison:
    """Compare a relation with a value: `x = 2+3 = 5` and `2+3 = 5` end in the value 5; `5 = 5` and `0 < 5` give no value."""
    if has_relation(reference):
        sides = reference.split("=")
        is_sum = len(sides) == 2 and labelled(reference) is None and all(map(_is_constant, sides))
        return by_structure(given, sides[-1].strip(), depth + 1) if is_sum else Comparison(False, "a relation and none")
    named = labelled(given)
    if named is None:
        left, *sides = given.split("=")
        calculates = re.search(
            r"[-+*/^!]|\\[a-z]", left.strip().lstrip("+-")
        )  # a leading sign alone is not a calculation
        says_itself = len({re.sub(r"[{}\s]", "", side) for side in (left, *sides)}) == 1
        if not sides or has_relation("".join([left, *sides])) or says_itself or not calculates:
            return Comparison(False, "a relation and none")
        named = Labelled("", sides[-1].strip(), (left, *sides[:-1]))
    if not named.between or not _holds(named):
        return Comparison(False, "a relation and none")
    return by_structure(named.value, reference, depth + 1)


def _holds(named: Labelled) -> bool:
    """True if all sides between a name and its value equal the value."""
    return all(agree_at_points(read_formula(side.strip()), read_formula(named.value)) for side in named.between)


def _is_constant(text: str) -> bool:
    formula = read_formula(text.strip())
    return isinstance(formula, sympy.Expr) and not formula.free_symbols
