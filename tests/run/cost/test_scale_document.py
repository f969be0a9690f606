"""docs/scale.md: every number of its tables is printed by the command that stands in its row."""

from __future__ import annotations

import functools
import re
import shlex
import sys

import pytest

from r1_lightning.run.cost.plan_pipeline import main
from tests.architecture import documents
from tests.architecture.house import ROOT

TEXT = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
SCRIPT = "python scripts/plan_pipeline.py "
pytestmark = pytest.mark.slow
ROWS = [cells for cells in documents.rows(TEXT) if cells[0].startswith(f"`{SCRIPT}")]
NUMBER = re.compile(r"\d[\d,.]*(?: ?(?:GiB|[TGM]B|B|TFLOP/s|ms|s|%)(?![A-Za-z]))?")


@functools.cache
def printed(command: str) -> tuple[str, ...]:
    """The lines of a command, with single spaces."""
    lines: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", shlex.split(command)[1:])
        patch.setattr("builtins.print", lambda line: lines.append(" ".join(line.split())))
        assert main() == 0
    return tuple(lines)


def numbers(text: str) -> list[str]:
    return [number.rstrip(".,") for number in NUMBER.findall(text)]


def is_said(number: str, lines: tuple[str, ...]) -> bool:
    return any(re.search(rf"(?<![\d.,]){re.escape(number)}(?![\d%]|[.,]\d)", line) for line in lines)


@pytest.mark.parametrize("cells", ROWS, ids=lambda cells: cells[0].removeprefix(f"`{SCRIPT}").rstrip("`"))
def test_each_number_is_printed_by_the_command_in_its_row(cells: list[str]):
    lines = printed(cells[0].strip("`"))
    said = cells[-1:] if "what" in _head(cells) else cells[1:]
    wanted = [number for cell in said for number in numbers(cell)]
    assert wanted and [number for number in wanted if not is_said(number, lines)] == []


def test_cells_of_the_first_table_are_of_their_schedule():
    for command, *cells in (row for row in ROWS if len(row) == 4):
        rows = {line.split()[0]: line.split()[-4:] for line in printed(command.strip("`")) if "x " in line}
        for name, cell in zip(("1F1B", "ZB1P", "DualPipe"), cells, strict=True):
            bubble, share, _, kept = rows[name]
            assert cell == f"{bubble}; {share}; {kept}"


def test_the_document_leads_somewhere_and_has_its_tables():
    assert documents.broken_links(TEXT, ROOT / "docs") == []
    assert documents.missing_files(TEXT) == []
    assert len(ROWS) >= 15


def _head(cells: list[str]) -> tuple[str, ...]:
    """The heads of the columns of a row's table, by its number of cells."""
    return ("command", "what", "number") if len(cells) == 3 else ("command",)
