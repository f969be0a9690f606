"""The numbers that the papers print, as CSV files in `paper/`: lines with `#` say the source and what it leaves open.

Some tables name the models in a column (`models_in: model`), others name them in the head and the benchmarks in a column
(`quantities_in: benchmark`). Cells stay text, as printed: "26K" is no number.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from r1_lightning.types.errors import InvalidInput, require, require_choice

FOLDER = Path(__file__).with_name("paper")


@dataclass(frozen=True)
class PaperTable:
    """One file: `source` and the notes below it, and the rows."""

    name: str
    source: str
    notes: tuple[str, ...]
    rows: tuple[Mapping[str, str], ...]

    def cell(self, model: str, quantity: str, models_in: str | None, quantities_in: str | None) -> str:
        """What the paper prints for a model and a quantity. Raises `InvalidInput` if it names neither."""
        key, name, column = (models_in, model, quantity) if models_in else (str(quantities_in), quantity, model)
        for row in self.rows:
            if row.get(key) == name:
                require_choice(f"{self.name}: the column", column, row)
                return row[column]
        raise InvalidInput(f"{self.name}: no row has {key}={name!r}")


def paper_table(name: str) -> PaperTable:
    """Read `paper/NAME.csv`. Raises `InvalidInput` if there is no such file."""
    require_choice("paper.file", name, sorted(path.stem for path in FOLDER.glob("*.csv")))
    lines = (FOLDER / f"{name}.csv").read_text(encoding="utf-8").splitlines()
    comments = [line.removeprefix("#").strip() for line in lines if line.startswith("#")]
    rows = tuple(csv.DictReader(line for line in lines if not line.startswith("#")))
    sources = [line.removeprefix("source:").strip() for line in comments if line.startswith("source:")]
    require(len(sources) == 1 and bool(rows), "paper.file", name, "it must have one line `# source:` and rows")
    notes = tuple(line.removeprefix("note:").strip() for line in comments if line.startswith("note:"))
    return PaperTable(name, sources[0], notes, rows)
