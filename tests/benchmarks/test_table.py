"""The table says what was measured, files are never overwritten, and README.md changes between its markers only."""

from __future__ import annotations

import csv
from dataclasses import replace

import pytest

from benchmarks.floor import Part
from benchmarks.pairs import Contest, Result, Side
from benchmarks.table import BEGIN, END, README, Machine, render, render_floors, write_between_markers, write_csv
from r1_lightning.types.errors import InvalidInput
from tests.benchmarks.test_floor import PEAKS

MACHINE = Machine("2026-01-02", "0123456789abcdef-dirty", "Some processor", 2, 2, "Python 3", 0.25)


def result(unit="tokens/s"):
    contest = Contest("sampling, 4 rows", unit, "they", {"defaults": float}, {"a": float, "b": float})
    return Result(
        contest, Side("defaults", {}, 0.0, (3000.0, 1000.0)), Side("b", {"a": 400.0, "b": 500.0}, 2.5, (500.0, 500.0))
    )


def test_the_table_holds_medians_ratios_and_trials():
    text = render([result()], MACHINE)
    # medians 2000 and 500; ratios 6 and 2, whose median is 4
    assert "| sampling, 4 rows | 2,000 tokens/s | they: 500 tokens/s | **4.00x** (2.00 to 6.00) |" in text
    assert "they: **b**, first run 2.5 s longer (a: 400 tokens/s; b: 500 tokens/s)" in text
    assert "2 cores" in text and "0123456789-dirty" in text and "load before the run 0.2" in text


def test_seconds_keep_their_decimals():
    # ratios 500/3000 and 500/1000: median 1/3
    row = "2000.00 s/step | they: 500.00 s/step | **0.33x** (0.17 to 0.50)"
    assert row in render([result("s/step")], MACHINE)


def test_a_step_stands_beside_its_floor_and_its_phases():
    parts = [Part("rollout", "fp32", 2e9, 1e9), Part("update", "bf16", 8e9, 1e8)]
    phases = {"rollout and rewards": 0.15, "the rest": 0.05}
    # 1,000 tokens a step at a median of 2,000 tokens/s are 0.5 s; the floor is 0.1 + 0.02 s (see test_floor.py)
    told = replace(result().contest, floors={"defaults": parts}, step_tokens=1000)
    text = render_floors([replace(result(), contest=told, phases=phases), result("MB")], PEAKS)
    row = "| 0.500 s | 0.120 s (24%) | rollout 0.100; update 0.020 | rollout and rewards 0.150; the rest 0.050 |"
    assert text.count("\n| ") == 2 and text.endswith(f"| sampling, 4 rows, defaults {row}")
    seconds = replace(result("s/step"), contest=replace(result("s/step").contest, floors={"defaults": parts}))
    assert "| 2000.000 s | 0.120 s (0%) |" in render_floors([seconds], PEAKS)
    assert "| not measured |" in render_floors([seconds], PEAKS)


def test_every_pair_is_a_line_and_an_older_file_stays(tmp_path):
    first, second = write_csv([result()], MACHINE, tmp_path), write_csv([result()], MACHINE, tmp_path)
    assert (first.name, second.name) == ("2026-01-02.csv", "2026-01-02-2.csv")
    with first.open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["pair"], row["ours"], row["theirs"], row["speed_up"]) for row in rows] == [
        ("1", "3000", "500", "6"),
        ("2", "1000", "500", "2"),
    ]
    assert rows[0]["their_setting"] == "b"


def test_only_what_is_between_the_markers_changes(tmp_path):
    page = tmp_path / "README.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write_between_markers("new", page)
    assert page.read_text() == f"before\n{BEGIN}\nnew\n{END}\nafter\n"


@pytest.mark.parametrize("text", ["none", f"{BEGIN}", f"{END} {BEGIN}", f"{BEGIN} {END} {END}"])
def test_a_page_without_its_markers_is_refused(tmp_path, text):
    page = tmp_path / "README.md"
    page.write_text(text)
    with pytest.raises(InvalidInput, match="once each"):
        write_between_markers("new", page)
    assert page.read_text() == text


def test_our_page_has_the_markers():
    page = README.read_text()
    assert page.count(BEGIN) == page.count(END) == 1
    assert page.index(BEGIN) < page.index(END)
