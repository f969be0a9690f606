"""The tables that stand below a folder of reports: drawn from their rows, compared with them, and drawn again after a report.

A table with runs of its own has its rows beside its page; the others take those of a report, so that new rows of one report may
change the pages of several tables.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from r1_lightning.artefacts.files import write_text
from r1_lightning.run.commands.recipe import Row, read
from r1_lightning.run.commands.tables.declared import Table, read_table, tables
from r1_lightning.run.commands.tables.page import page

RESULTS, CURVES, PAGE = "results.csv", "curves.csv", "table.md"  # in a report's folder


def rows_of(table: Table, reports: Path) -> tuple[list[Row], list[Row]]:
    """Rows and points of a table: its own, or those of the report that it is drawn from."""
    place = reports / (table.report or table.id)
    return list(read(place / RESULTS)), list(read(place / CURVES))


def drawn(reports: Path, of_report: str | None = None) -> Iterator[tuple[Path, str]]:
    """The page of each table that has one below `reports`, and what its rows give today; `of_report`: only those of this report."""
    for name, path in tables().items():
        written = reports / name / PAGE
        if written.is_file():
            table = read_table(path)
            if of_report in (None, table.report):
                yield written, page(table, *rows_of(table, reports))


def draw_again(reports: Path, of_report: str | None = None) -> None:
    """Write the pages that `drawn` gives."""
    for path, text in drawn(reports, of_report):
        write_text(path, text)
