"""The page of a table, from rows whose means and intervals are worked out here."""

from __future__ import annotations

from pathlib import Path

import yaml

from r1_lightning.run.commands.tables.declared import Table, read_table
from r1_lightning.run.commands.tables.page import page
from tests.run.commands.tables.test_declared import MINE

# Strict accuracy 0.6, 0.7, 0.8 and 0.5, 0.5, 0.5. Half width of the first: 4.3027 * 0.1 / sqrt(3) = 0.2484.
ROWS = [
    {"arm": arm, "seed": str(seed), "measure": "m", "value": str(value), "commit": "c" * 40, **bounds}
    for arm, own in (("a", [0.6, 0.7, 0.8]), ("b", [0.5, 0.5, 0.5]))
    for seed, value in enumerate(own)
    for bounds in [{"low": str(value - 0.1), "high": str(value + 0.2)} if arm == "a" else {"low": "", "high": ""}]
]
NOT_MEASURED = {"says": "bigger", "where": "table 9", "not_measured": "nobody has the weights"}


def mine(folder: Path) -> Table:
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({**MINE, "claims": [*MINE["claims"], NOT_MEASURED]}), encoding="utf-8")
    return read_table(path)


def test_the_paper_stands_beside_ours_with_both_intervals(tmp_path: Path) -> None:
    lines = page(mine(tmp_path), ROWS, []).splitlines()
    assert lines[:3] == ["# Mine", "", "`python scripts/reproduce_table.py table=mine`"]
    assert "- Seeds: 0, 1, 2" in lines and "- Rows: `results.csv`, of commit cccccccccc" in lines
    assert "| OpenAI-o1-mini |  | 63.6 (aime2024_pass1) |  |  |  |  |" in lines
    # Bounds over questions: the means of 0.5, 0.6, 0.7 and of 0.8, 0.9, 1.0.
    assert "| a | M | 71.0 (aime2024_pass1) | 0.700 | [0.452, 0.948] | [0.600, 0.900] | 3 |" in lines
    assert "| b | M |  | 0.500 | [0.500, 0.500] |  | 3 |" in lines
    assert not any(line.startswith("| b | n |") for line in lines)


def test_claims_have_their_rule_and_verdict(tmp_path: Path) -> None:
    lines = page(mine(tmp_path), ROWS, []).splitlines()
    # 0.2 +- 0.2484.
    rule = "| s (w) | a - b on m > 0 | +0.2 [-0.0484, +0.448], 3 seeds | **cannot tell at this budget** |"
    assert rule in lines
    assert "| bigger (table 9) |  | nobody has the weights | **not measured** |" in lines


def test_one_seed_has_no_interval_and_none_is_not_measured(tmp_path: Path) -> None:
    lines = page(mine(tmp_path), [row for row in ROWS if row["seed"] == "0"], []).splitlines()
    assert "| a | M | 71.0 (aime2024_pass1) | 0.600 |  | [0.500, 0.800] | 1 |" in lines
    assert any(line.endswith("| +0.1, 1 seed | **cannot tell at this budget** |") for line in lines)
    empty = page(mine(tmp_path), [], []).splitlines()
    assert "- Seeds: none yet" in empty
    assert "| a | M | 71.0 (aime2024_pass1) | not measured |  |  | 0 |" in empty
    assert "| s (w) | a - b on m > 0 |  | **not measured** |" in empty
