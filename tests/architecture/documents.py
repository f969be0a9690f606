"""What documents say of the checkout, as functions: each takes a text and returns what it names and what is not there.

They read source by its syntax tree and configurations as YAML; nothing is imported and Hydra is not asked.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from r1_lightning.__main__ import COMMANDS
from r1_lightning.run.config.file_names import with_readers
from tests.architecture.house import PACKAGE, ROOT

CONFIGS = ROOT / "configs"
FOLDERS = ("scripts", "tests", "configs", "docs", "reports", "benchmarks", PACKAGE)
OWN = "mine"  # what a reader is to call an option of their own
CODE_SPAN = re.compile(r"`([^`\n]+)`")
CODE_BLOCK = re.compile(r"^ *```[^\n]*\n(.*?)^ *```", re.M | re.S)
LINK = re.compile(r"\]\(([^)\s]+)\)")
A_PATH = re.compile(rf"(?<![\w/.-])(?:{'|'.join(FOLDERS)})/[\w./*-]*[\w*]")
IN_PACKAGE = re.compile(r"(?<![\w/.-])(?:[a-z_]+/)+\w+\.py")  # as architecture.md writes `stages/grpo.py`
NAME_IN_FILE = re.compile(
    r"([\w./-]+\.py):{1,2}([A-Za-z_][\w.]*)"
)  # `stages/grpo.py:GRPOModule.training_step`, or a test's node id
NUMBERS = ("no", "one", "two", "three", "four", "five", "six")
TARGET = re.compile(r"^make ([a-z_]+)$")


def code(text: str) -> Iterator[str]:
    """Code spans and blocks of a Markdown text."""
    for match in CODE_BLOCK.finditer(text):
        yield match[1]
    for match in CODE_SPAN.finditer(CODE_BLOCK.sub("", text)):
        yield match[1]


def broken_links(text: str, folder: Path) -> list[str]:
    """Links of a document in `folder` to files that are not there, or to headings that such a file does not have."""
    found = []
    for target in LINK.findall(CODE_BLOCK.sub("", text)):
        name, _, anchor = target.partition("#")
        if "://" in name:
            continue
        path = folder / name
        if not path.exists() or (anchor and anchor not in _anchors(path.read_text(encoding="utf-8") if name else text)):
            found.append(target)
    return found


def missing_files(text: str) -> list[str]:
    """Files and folders of the checkout that code spans and blocks name and that are not there.

    `*` stands for anything, NAMES in capitals for a reader's own, and what follows `--out` is yet to be written.
    """
    named = {path for piece in code(text) for path in A_PATH.findall(re.sub(r"--out \S+", "", piece))}
    named |= {f"{PACKAGE}/{path}" for piece in code(text) for path in IN_PACKAGE.findall(piece) if not _is_rooted(path)}
    return sorted(path for path in named if not _is_readers_own(path) and not _is_built(path) and not _exists(path))


def unknown_names(text: str) -> list[str]:
    """`file.py:Name.attribute` and `file.py::test` in code that the file does not define; the package's name may be left out."""
    found = set()
    for file, name in (pair for piece in code(text) for pair in NAME_IN_FILE.findall(piece)):
        path = next((ROOT / base / file for base in ("", PACKAGE) if (ROOT / base / file).is_file()), None)
        if path is None or not _defines(path, name.split(".")):
            found.add(f"{file}:{name}")
    return sorted(found)


def sizes_of_commits(text: str) -> dict[str, int]:
    """Commit -> files, from sentences such as "Commit `543a847` (what it adds) touches four files"."""
    found = re.findall(r"[Cc]ommit `([0-9a-f]{7,40})`(?: \([^)]*\))? touches (\w+) files", text)
    return {name: NUMBERS.index(number) for name, number in found}


def unknown_targets(text: str) -> list[str]:
    """`make NAME` in code spans where the Makefile has no such target."""
    targets = re.findall(r"^([a-z_]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    return sorted({match[1] for span in CODE_SPAN.findall(text) if (match := TARGET.match(span))} - set(targets))


def unknown_commands(text: str) -> list[str]:
    """`r1 NAME` in code for a command that there is not."""
    named = {name for piece in code(text) for name in re.findall(r"^ *r1 ([a-z][\w-]*)(?!\S)", piece, re.M)}
    return sorted(named - set(COMMANDS))


def unknown_options(text: str) -> list[str]:
    """`group=option` in code for a group of configs/ that has no such option; NAMES in capitals stand for anything."""
    groups = {folder.name for folder in CONFIGS.iterdir() if folder.is_dir()}
    found = []
    for group, option in _assignments(text):
        if group in groups and option != OWN and re.fullmatch(r"[a-z]\w*", option):
            is_report = group == "table" and (ROOT / "reports" / option / "recipe.py").is_file()
            if option != "null" and not is_report and not (CONFIGS / group / f"{option}.yaml").is_file():
                found.append(f"{group}={option}")
    return sorted(set(found))


def unknown_keys(text: str) -> list[str]:
    """`group.key=...` in code that no file of configs/ has: Hydra would refuse it. `+group.key` is the reader's to add.

    What the program itself writes out before Hydra reads it (`data.traces.file=FILE`) is looked for as it is written out.
    """
    groups = {folder.name for folder in CONFIGS.iterdir() if folder.is_dir()}
    read = (with_readers([f"{key}={value}"])[0].partition("=")[0] for key, value in _assignments(text))
    return sorted({key for key in read if "." in key and key.split(".")[0] in groups} - _keys())


def unknown_functions(text: str) -> list[str]:
    """Names in code spans, `layer.module.Name` or `benchmarks....`, that are not in the source.

    `Name` alone is of the file before, or one of its arguments or fields.
    """
    found: list[str] = []
    last: Path | None = None
    for name in CODE_SPAN.findall(text):
        if "/" in name:
            found += missing_files(f"`{name}`") + unknown_names(f"`{name}`")
        elif ":" in name or "=" in name:
            continue
        elif (place := _module_of(name)) is not None:
            last, rest = place
            if rest and not _defines(last, rest):
                found.append(name)
        elif "." in name or last is None or not _names(last, name):
            found.append(name)
    return found


def unknown_tests(text: str) -> list[str]:
    """Tests in code spans, `tests/file.py::name`, that are not there; `::name` alone is of the file before."""
    found, last = [], ""
    for span in CODE_SPAN.findall(text):
        file, _, test = span.partition("::")
        last = file or last
        path = ROOT / last
        if not path.exists() or (test and test not in _functions(path)):
            found.append(span)
    return found


def rows(text: str) -> Iterator[list[str]]:
    """The cells of every line of a document's tables, headings left out."""
    lines = text.splitlines()
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if line.startswith("|") and not set(line) <= set("|-: ") and not following.startswith("|--"):
            yield [cell.strip() for cell in line.strip().strip("|").split("|")]


def _anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ +(.+)$", CODE_BLOCK.sub("", text), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _is_readers_own(path: str) -> bool:
    words = [word for part in Path(path).with_suffix("").parts for word in part.split("_")]  # test_NAME.py
    return Path(path).stem == OWN or any(word.isupper() for word in words)


def _is_built(path: str) -> bool:
    """Whether git ignores it by name from the root: `/docs/api/`."""
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    return any(line.startswith("/") and f"/{path}/".startswith(line) for line in ignored)


def _is_rooted(path: str) -> bool:
    return path.split("/")[0] in FOLDERS


def _exists(path: str) -> bool:
    return any(ROOT.glob(path)) if "*" in path else (ROOT / path).exists()


def _assignments(text: str) -> Iterator[tuple[str, str]]:
    for piece in code(text):
        yield from re.findall(r"(?<![\w.+@\"'=-])['\"]?([a-z_]+(?:\.\w+)*)=([^\s,;'\"]*)", piece)


@functools.cache
def _keys() -> frozenset[str]:
    """Every dotted key of every file below configs/, a group's own name before it unless the file is global."""
    found: set[str] = set()
    for path in CONFIGS.rglob("*.yaml"):
        source = path.read_text(encoding="utf-8")
        content = yaml.safe_load(source) or {}
        group = "" if "@package _global_" in source or path.parent == CONFIGS else f"{path.parent.name}."
        found |= set(_dotted(content, group))
    return frozenset(found)


def _dotted(node: object, prefix: str) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield f"{prefix}{key}"
            yield from _dotted(value, f"{prefix}{key}.")


def _module_of(name: str) -> tuple[Path, list[str]] | None:
    """The file behind the first parts of a dotted name, and the parts after them."""
    parts = name.split(".")
    base = ROOT if parts[0] == "benchmarks" else ROOT / PACKAGE
    for end in range(len(parts), 1, -1):
        path = base.joinpath(*parts[:end]).with_suffix(".py")
        if path.is_file():
            return path, parts[end:]
    return None


def _defines(path: Path, names: list[str]) -> bool:
    """Whether a file defines `names[0]`, and that `names[1]`, and so on; what a class inherits is looked for in the same file."""
    body: list[ast.stmt] | None = _tree(path).body
    for name in names:
        node = None if body is None else _find(body, name)
        if node is None:
            return False
        body = node.body if isinstance(node, ast.ClassDef) else None
    return True


def _find(body: list[ast.stmt], name: str) -> ast.stmt | None:
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name == name:
            return node
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return node
    return None


def _names(path: Path, name: str) -> bool:
    """Whether a file defines `name`, or takes an argument or field of that name."""
    return _defines(path, [name]) or any(
        (isinstance(node, ast.arg) and node.arg == name)
        or (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == name)
        for node in ast.walk(_tree(path))
    )


def _functions(path: Path) -> set[str]:
    return {node.name for node in ast.walk(_tree(path)) if isinstance(node, ast.FunctionDef)}


@functools.cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))
