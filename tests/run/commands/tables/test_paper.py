"""The papers' numbers: cells by model and quantity in both layouts, and every file against the table it was taken from."""

from __future__ import annotations

from pathlib import Path

import pytest

from r1_lightning.run.commands.tables.paper import FOLDER, paper_table
from r1_lightning.types.errors import InvalidInput

NAMES = sorted(path.stem for path in FOLDER.glob("*.csv"))


def test_cells_where_models_are_rows() -> None:
    table = paper_table("r1v1_table2_r1zero_vs_o1")
    assert table.cell("DeepSeek-R1-Zero", "aime2024_pass1", "model", None) == "71.0"
    assert table.cell("OpenAI-o1-0912", "codeforces_rating", "model", None) == "1843"


def test_cells_where_models_are_columns() -> None:
    table = paper_table("r1v2_table3_stages")
    assert table.cell("R1-Dev2", "AIME 2024 (Pass@1)", None, "benchmark") == "74.0"
    assert table.cell("R1", "Codeforces (Rating)", None, "benchmark") == "2029"


@pytest.mark.parametrize(
    ("model", "quantity", "message"),
    [("R2", "aime2024_pass1", "no row has model='R2'"), ("DeepSeek-R1-Zero", "x", "'x'")],
)
def test_a_mistyped_name_is_refused(model: str, quantity: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        paper_table("r1v1_table2_r1zero_vs_o1").cell(model, quantity, "model", None)


def test_a_file_that_is_not_there_is_refused_with_those_there_are() -> None:
    with pytest.raises(
        InvalidInput, match=r"paper.file='gone' is not allowed: it must be one of dsmath_table5_subset, "
    ):
        paper_table("gone")


@pytest.mark.parametrize("name", NAMES)
def test_every_file_names_its_source_and_is_the_collected_table(name: str, shared_dir: Path) -> None:
    table = paper_table(name)
    assert "arXiv:" in table.source or "DeepSeek" in table.source
    collected = shared_dir / "facts" / "paper_tables" / f"{name}.csv"
    assert (FOLDER / f"{name}.csv").read_bytes() == collected.read_bytes()
