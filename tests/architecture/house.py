"""The house rules as functions: each takes source text or a syntax tree and returns the places that break the rule.

They are apart from the tests so that every rule is also shown to find a fault planted in a sample
(test_house_rules.py): a rule that finds nothing anywhere proves nothing.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "r1_lightning"

FILE_LINES = 300  # a file that fits one sitting
FUNCTION_LINES = 60  # a function that fits one screen
SCRIPT_LINES = 40  # a script only calls run.cli

# Written in pieces, so that this file does not find itself.
_MARKS = ("TO" + "DO", "FIX" + "ME", "X" * 3, "HA" + "CK", "place" + "holder", "for " + "now")
UNFINISHED = re.compile(rf"\b(?:{'|'.join(_MARKS)})\b|raise NotImplemented" + "Error", re.I)
MACHINE_PATH = re.compile(r"(?<![\w.~-])/(?:root|home|Users|work|opt|mnt|data)/\w")
ANNOTATION_TYPES = ("Annotated", "Literal", "Mapping", "Path", "Sequence")
ASSERTING_CALLS = ("assert", "raises", "warns", "check")


def python_files(*folders: str) -> list[Path]:
    """Every .py file below `folders` of the checkout, in a fixed order."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def text_files() -> Iterator[Path]:
    """Everything a person wrote and git keeps: code, configs, documents, CI; not LICENSE and not pictures."""
    suffixes = {".py", ".yaml", ".yml", ".toml", ".md", ".txt", ".sh", ".csv", ".json"}
    for folder in (PACKAGE, "scripts", "tests", "configs", "docs", "reports", "benchmarks"):
        yield from sorted(path for path in (ROOT / folder).rglob("*") if path.suffix in suffixes)
    yield from sorted(path for path in ROOT.glob("*") if path.suffix in suffixes)
    yield ROOT / ".ci" / "run"


def name(path: Path) -> str:
    """The path as a person would type it, from the root of the checkout."""
    return path.relative_to(ROOT).as_posix()


def line_count(source: str) -> int:
    """Lines of a file, a last line without a newline included."""
    return len(source.splitlines())


def long_functions(source: str) -> list[str]:
    """Functions and methods of more than FUNCTION_LINES lines, signature and docstring included."""
    found = []
    for node in _functions(ast.parse(source)):
        length = (node.end_lineno or node.lineno) - node.lineno + 1
        if length > FUNCTION_LINES:
            found.append(f"{node.name} ({length} lines)")
    return found


def has_docstring(source: str) -> bool:
    """True where the module opens with a docstring."""
    return bool(ast.get_docstring(ast.parse(source)))


def powerless_tests(source: str) -> list[str]:
    """Tests that cannot fail: no assert statement, no pytest.raises or warns, no call named assert* or check*."""
    return [
        node.name
        for node in _functions(ast.parse(source))
        if node.name.startswith("test") and not any(_can_fail(sub) for sub in ast.walk(node))
    ]


def unfinished(source: str) -> list[str]:
    """Lines that say there is work left."""
    return [line.strip() for line in source.splitlines() if UNFINISHED.search(line)]


def class_questions(source: str) -> list[str]:
    """Comparisons by `is` with a class, as `target is Comparison`, and `issubclass` of one: code that asks what a target is.

    A class is a name in CamelCase; a constant (`True`, `R1`) is none. Types that annotations are made of may be asked for.
    """
    found = []
    for node in ast.walk(ast.parse(source)):
        operands: list[ast.expr] = []
        if isinstance(node, ast.Compare) and any(isinstance(operator, (ast.Is, ast.IsNot)) for operator in node.ops):
            operands = [node.left, *node.comparators]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "issubclass":
            operands = node.args[1].elts if isinstance(node.args[1], ast.Tuple) else node.args[1:]
        names = [ast.unparse(operand).split(".")[-1] for operand in operands if not isinstance(operand, ast.Constant)]
        if any(re.fullmatch(r"[A-Z]\w*[a-z]\w*", name) and name not in ANNOTATION_TYPES for name in names):
            found.append(ast.unparse(node))
    return found


def machine_paths(source: str) -> list[str]:
    """Lines that name an absolute path of somebody's machine."""
    return [line.strip()[:100] for line in source.splitlines() if MACHINE_PATH.search(line)]


def _functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def _can_fail(node: ast.AST) -> bool:
    if isinstance(node, ast.Assert):
        return True
    return isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1].startswith(ASSERTING_CALLS)
