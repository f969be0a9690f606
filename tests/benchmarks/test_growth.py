"""Curves by hand: exponents of known powers, what is read back, what is refused, and one tiny curve that is cut off and goes on."""

from __future__ import annotations

import math
from argparse import Namespace
from pathlib import Path

import pytest

from benchmarks import growth
from benchmarks.floor import Part, Peaks
from benchmarks.growth import COLUMNS, append, cost, main, measure, read, render, render_floors, slope, verdict
from benchmarks.growth_axes import TINY
from benchmarks.pairs import Contest
from r1_lightning.types.errors import InvalidInput


def rows(costs: dict[int, list[tuple[float, float]]], unit: str = "s/step") -> list[dict[str, str]]:
    """Rows of an axis whose pairs have these values, ours and theirs."""
    cells = dict.fromkeys(COLUMNS, "x") | {"axis": "prompt", "contest": "grpo", "unit": unit, "opponent": "TRL"}
    return [
        {**cells, "value": str(value), "ours": str(ours), "theirs": str(theirs), "speed_up": str(theirs / ours)}
        for value, pairs in costs.items()
        for ours, theirs in pairs
    ]


def test_a_slope_by_hand() -> None:
    """Through (0, 1), (1, 2), (2, 6): 5 / 2; residues 0.5, -1, 0.5, so the error is sqrt(1.5 / 1 / 2)."""
    found = slope([(0.0, 1.0), (1.0, 2.0), (2.0, 6.0)])
    assert (found.value, found.error) == pytest.approx((2.5, math.sqrt(0.75)))
    assert slope([(0.0, 1.0), (1.0, 3.0)]).error == math.inf
    with pytest.raises(InvalidInput, match="two different values"):
        slope([(1.0, 1.0), (1.0, 3.0)])


@pytest.mark.parametrize(
    ("ours", "theirs", "said"),
    [(1.0, 2.0, "theirs grows faster"), (2.0, 1.0, "**ours grows faster**"), (1.0, 1.0, "no difference is shown")],
)
def test_the_exponents_are_those_of_the_costs(ours: float, theirs: float, said: str) -> None:
    """Costs value^ours and value^theirs, with noise that both sides of a pair share, and a little of their own."""
    noise = [(1.0, 1.01), (1.5, 1.0), (0.8, 0.99)]
    costs = {value: [(many * value**ours, many * few * value**theirs) for many, few in noise] for value in (2, 4, 8)}
    own, other, difference, found = verdict(rows(costs))
    assert (own.value, other.value) == pytest.approx((ours, theirs), abs=1e-6)
    assert difference.value == pytest.approx(ours - theirs, abs=1e-6) and found == said
    assert said in render(rows(costs))


def test_speeds_are_costs_upside_down() -> None:
    row = rows({2: [(50.0, 25.0)]}, unit="tokens/s")[0]
    assert (cost(row, "ours"), cost(row, "theirs")) == (0.02, 0.04)


def test_the_table_has_medians_and_their_range() -> None:
    table = render(rows({32: [(1.0, 2.0), (2.0, 6.0), (1.0, 8.0)], 512: [(4.0, 8.0)]}))
    assert (
        "| 32 | 1 | 6 | **3.00x** (2.00 to 8.00) |" in table and "| 512 | 4 | 8 | **2.00x** (2.00 to 2.00) |" in table
    )
    assert "Exponents" not in render(rows({32: [(1.0, 2.0)]}))


def test_a_line_for_each_curve(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ours doubles its cost with the prompt, theirs has it four times: 2 times as fast, then 4. One point is no curve."""
    append(tmp_path / "grpo_over_prompt.csv", rows({32: [(1.0, 2.0)] * 3, 1024: [(2.0, 8.0)] * 3}))
    append(tmp_path / "sampling_over_width.csv", rows({32: [(1.0, 2.0)]}))
    assert main(["--summary", "--out", str(tmp_path)]) == 0
    _, _, *lines = capsys.readouterr().out.splitlines()
    assert lines == ["| grpo | prompt 32, 1,024 | 2.00, 4.00 | 0.20, 0.40 | -0.20 (0.00): theirs grows faster |"]


def test_floors_beside_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    """200 FLOPs at 100 FLOP/s take 2 s, half of 4 s and a quarter of 8. Speeds are costs, too."""
    peaks = Peaks({"fp32": 100.0}, 1.0)
    for contest in ("grpo", "sampling"):
        monkeypatch.setitem(growth.FLOORS, contest, lambda world: [Part("x", "fp32", 200.0, 0.0)])
    assert "| 32 | 2 s | 50% | 25% |" in render_floors(rows({32: [(4.0, 8.0)]}), {32: TINY}, peaks)
    tokens = TINY.size.completions * TINY.size.new_tokens
    speeds = [{**row, "contest": "sampling"} for row in rows({32: [(tokens / 4, tokens / 8)]}, "tokens/s")]
    assert "| 32 | 2 s | 50% | 25% |" in render_floors(speeds, {32: TINY}, peaks)


def test_rows_are_read_back_and_other_files_refused(tmp_path: Path) -> None:
    path, some = tmp_path / "new" / "curve.csv", rows({32: [(1.0, 2.0)], 64: [(2.0, 3.0)]})
    assert read(path) == []
    append(path, some[:1])
    append(path, some[1:])
    assert read(path) == some
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InvalidInput, match=r"other\.csv"):
        read(tmp_path / "other.csv")


def test_a_curve_that_was_cut_off_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Points that are in the file are not measured again."""
    asked: list[int] = []

    def contest(world: object) -> Contest:
        return Contest("work", "s/step", "they", {"a": lambda: 1.0}, {"b": lambda: 2.0})

    def at(axis: str, value: int, base: object) -> object:
        asked.append(value)
        return base

    monkeypatch.setitem(growth.CONTESTS, "grpo", contest)
    monkeypatch.setattr(growth, "world_at", at)
    options = Namespace(out=tmp_path, points=[8], pairs=2, quick=True, compile=False, floors=False)
    measure("prompt", "grpo", options)
    options.points = [8, 16]
    measure("prompt", "grpo", options)
    assert asked == [8, 16]
    assert [row["value"] for row in read(tmp_path / "grpo_over_prompt.csv")] == ["8", "8", "16", "16"]


@pytest.mark.parametrize(
    "arguments",
    [("--pairs", "0"), ("--axis", "prompt", "--contest", "pretraining"), ("--axis", "prompt", "--points", "0")],
)
def test_bad_input_is_one_line(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main([*arguments, "--out", str(tmp_path)]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1 and errors[0].startswith("error: ") and not list(tmp_path.iterdir())


def test_floors_are_of_fp32(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--floors", "--compile"])
    assert "without --compile" in capsys.readouterr().err


def test_a_rehearsal_does_not_stand_beside_real_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--quick"])
    assert "--out" in capsys.readouterr().err and TINY.size.prompts == 4


@pytest.mark.slow
def test_a_tiny_curve(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Sampling over two lengths of prompts, ours beside transformers."""
    given = ["--axis", "prompt", "--contest", "sampling", "--points", "20", "40", "--pairs", "1", "--quick"]
    assert main([*given, "--floors", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "Exponents of cost" in said and "| prompt | floor of a step | share of ours | share of theirs |" in said
    assert [row["value"] for row in read(tmp_path / "sampling_over_prompt.csv")] == ["20", "40"]
