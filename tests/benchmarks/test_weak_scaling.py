"""Weak scaling: what is measured of a block, the ratio, the tables; and one rehearsal of the whole."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmarks import weak_scaling
from benchmarks.weak_scaling import ARRANGEMENTS, BLOCK_STEPS, checkpoints, ratios, render, rows_of, seconds


def step(number: int, seconds: float, parts: Mapping[str, float] | None = None, calls: Any = ()) -> dict[str, Any]:
    return {"number": number, "seconds": seconds, "parts": dict(parts or {}), "calls": list(calls), "bytes": {}}


def block(turn: int, *all_seconds: float) -> list[dict[str, Any]]:
    """The steps of turn number `turn`; the first and the last take ten times as long."""
    first = turn * BLOCK_STEPS
    ends = {first: 10.0, first + BLOCK_STEPS - 1: 10.0}
    return [step(first + place, value * ends.get(first + place, 1.0)) for place, value in enumerate(all_seconds)]


def test_first_and_last_step_of_a_block_are_not_measured() -> None:
    """Of 1, 1, 2, 4, 4, 1 s (the ends ten times that) the median of 1, 2, 4, 4 is 3 s."""
    rows = rows_of("one", 0, [block(0, 1, 1, 2, 4, 4, 1)])
    assert [row["measured"] for row in rows] == [0, 1, 1, 1, 1, 0] and seconds(rows) == 3.0


def test_the_ratio_is_taken_by_round() -> None:
    """Together 2.5 and 1.6 s beside 2 s alone: 0.8 and 1.25. A step is the mean of its processes'."""
    alone = [rows_of("one", turn, [block(turn, *[2.0] * 6)]) for turn in (0, 1)]
    pairs = [(2.4, 2.6), (1.6, 1.6)]
    both = [rows_of("together", turn, [block(turn, *[own] * 6) for own in pairs[turn]]) for turn in (0, 1)]
    rows = [row for part in (*alone, *both) for row in part]
    assert ratios(rows, "together") == pytest.approx([0.8, 1.25]) and ratios(rows, "one") == [1.0, 1.0]


def test_the_tables() -> None:
    """Each process alone takes 2 s; together rank 0 comes 0.2 s before rank 1 to the rollout, whose exchange takes 0.1 s."""
    called = [[("batches", 1.0, 1.3)], [("batches", 1.2, 1.3)]]
    rows = []
    for name in ARRANGEMENTS:
        calls = called if name == "together" else [[], []]
        own = [
            [step(number, 2.0, {"rollout": 1.0, "rest": 0.5}, mine) for number in range(BLOCK_STEPS)]
            for mine in calls[: len(weak_scaling.ROLES[name])]
        ]
        rows += rows_of(name, 0, own)
    lines = render(rows, 16).splitlines()
    assert lines[2] == "| one | 16 | 2.00 | **1.00** (1.00 to 1.00) | 8.0 |"
    assert lines[4] == "| together | 32 | 2.00 | **1.00** (1.00 to 1.00) | 16.0 |"
    assert "| rollout | 1,000 | 1,000 | 1,000 |" in lines
    assert "| waiting for the other: the rollout | 0 | 0 | 100 |" in lines
    assert "| gloo: the rollout | 0 | 0 | 100 |" in lines
    assert lines[-1] == "| the step | 2,000 | 2,000 | 2,000 |"


def test_a_checkpoint_is_made_behind_one_block_and_written_in_the_next() -> None:
    blocks = [[step(number, 1.0, {"checkpoint": 0.1 * (number == 5) + 0.3 * (number == 6)}) for number in numbers]
              for numbers in (range(6), range(6, 12))]  # fmt: skip
    rows = [row for turn, own in enumerate(blocks) for row in rows_of("one", turn, [own])]
    assert checkpoints(rows, "one") == pytest.approx([0.4])


@pytest.mark.slow
def test_a_rehearsal_measures_every_arrangement(repo_root: Path, tmp_path: Path) -> None:
    """Two processes sent their gradients of 1.07 million weights, 4 bytes each, and the same prompts were drawn by each."""
    out = tmp_path / "rows.csv"
    command = [sys.executable, str(repo_root / "benchmarks" / "weak_scaling.py"), "--quick", "--rounds", "2"]
    environment = {**os.environ, "PYTHONPATH": str(repo_root)}
    result = subprocess.run(
        [*command, "--seconds", "3600", "--out", str(out)], env=environment, capture_output=True, text=True, timeout=900
    )
    assert result.returncode == 0, result.stderr
    with out.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * BLOCK_STEPS * 5
    together = [row for row in rows if row["arrangement"] == "together"]
    assert {row["bytes: backward"] for row in together if int(row["step"]) % BLOCK_STEPS == 0} == {"4289792"}
    assert all(float(row["gloo: backward"]) > 0 and float(row["gloo: rest"]) > 0 for row in together)
    assert all(
        float(row["waiting: backward"]) == 0 == float(row["gloo: batches"])
        for row in rows
        if row["arrangement"] != "together"
    )
    assert "| together | 4 |" in result.stdout and "A process gives, in a step: the rollout 0." in result.stdout
