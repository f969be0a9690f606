"""The shipped bands fit their reports and today's configurations; a run finds the nearest; a file that is no band is refused."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from r1_lightning.review import expected
from r1_lightning.review.bands import Band, Bounds
from r1_lightning.review.expected import (
    MAX_BYTES,
    band_for,
    band_of_runs,
    known,
    place_of,
    read_band,
    shipped,
    text_of,
    write_band,
)
from r1_lightning.review.run_files import LONGEST
from r1_lightning.types.errors import InvalidInput
from tests.golden.bands import EXPECTED, bands
from tests.support.run_folders import CONFIG, write_run

SETTINGS = {"model.d_model": "8", "optim.lr": "0.1", "stage._target_": "GRPOModule", "stage.x": "1"}
BAND = Band("mine", (0, 1, 2), {"a": Bounds((0, 1), (0.0, 0.5), (1.0, 2.0))}, 1, SETTINGS)


@pytest.mark.slow
def test_shipped_bands_are_those_of_the_reports_and_of_today_s_settings() -> None:
    """Else write them with `python tests/golden/bands.py`; another setting of an experiment may need another band."""
    made = bands()
    assert len(made) >= 14
    committed = {path.stem: path.read_text(encoding="utf-8") for path in EXPECTED.glob("*.json")}
    assert {name for name, text in made.items() if committed.get(name) != text} == set()
    assert {band.experiment for band in shipped()} == set(committed)


def test_a_band_is_written_and_read(tmp_path: Path) -> None:
    write_band(tmp_path / "mine.json", BAND)
    assert read_band((tmp_path / "mine.json").read_text(), "mine.json") == BAND


@pytest.mark.parametrize(
    "change",
    [
        {"series": {"a": {"steps": [0, 0], "low": [0, 0], "high": [1, 1]}}},
        {"series": {"a": {"steps": [0], "low": [0, 0], "high": [1, 1]}}},
        {"series": {"a": {"steps": [0], "low": [float("nan")], "high": [1]}}},
        {"series": [1]},
        {"series": {"a\x1b[2J": {"steps": [0], "low": [0], "high": [1]}}},
        {"seeds": "x"},
        {"window": 0},
        {"settings": [1]},
    ],
)
def test_what_is_no_band_is_refused(change: dict) -> None:
    text = json.dumps({**json.loads(text_of(BAND)), **change})
    with pytest.raises(InvalidInput, match=r"bad\.json"):
        read_band(text, "bad.json")


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", "[" * 100_000])
def test_what_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"bad\.json is not allowed: it is no band"):
        read_band(text, "bad.json")


def test_the_nearest_band_and_what_differs() -> None:
    other = Band("other", (0, 1, 2), {}, 1, {**SETTINGS, "optim.lr": "10", "stage.x": "2"})
    assert band_for(SETTINGS, [other, BAND]) == (BAND, [])
    found = band_for({**SETTINGS, "optim.lr": "10"}, [other, BAND])
    assert found == (BAND, ["optim.lr=10 (0.1)"]) or found == (other, ["stage.x=1 (2)"])
    assert band_for({**SETTINGS, "new": "3"}, [BAND]) == (BAND, ["new=3 (-)"])


def test_a_person_s_own_band_counts_before_a_shipped_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, own = tmp_path / "runs" / "grpo-x", replace(BAND, experiment="own")
    monkeypatch.setattr(expected, "shipped", lambda: (BAND,))
    assert known(run) == (BAND,)
    place = place_of("own", run)
    assert place == tmp_path / "runs" / "expected" / "own.json"
    place.parent.mkdir(parents=True)
    write_band(place, own)
    assert known(run) == (own, BAND) and band_for(SETTINGS, known(run)) == (own, [])
    monkeypatch.chdir(tmp_path / "runs")
    assert known(Path("grpo-x")) == (own, BAND)


def test_what_lies_beside_runs_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = place_of("mine", tmp_path / "run")
    place.parent.mkdir()
    place.write_text(text_of(BAND) + " " * MAX_BYTES)
    with pytest.raises(InvalidInput, match=r"mine\.json.*at most 524288 bytes"):
        known(tmp_path / "run")
    place.unlink()
    os.mkfifo(place)  # not read: nobody may write
    with pytest.raises(InvalidInput, match="it must be a file"):
        known(tmp_path / "run")
    place.unlink()
    monkeypatch.setattr(expected, "MAX_BANDS", 1)
    for name in ("a", "b"):
        write_band(place_of(name, tmp_path / "run"), BAND)
    with pytest.raises(InvalidInput, match="=2 is not allowed: at most 1 files are read"):
        known(tmp_path / "run")


def test_no_band_is_near() -> None:
    for name, value in (("model.d_model", "9"), ("stage._target_", "PPOModule")):
        assert band_for({**SETTINGS, name: value}, [BAND]) is None
    assert band_for({**SETTINGS, **{f"k{n}": "1" for n in range(5)}}, [BAND]) is None
    assert band_for({**SETTINGS, **{f"k{n}": "1" for n in range(4)}}, [BAND]) is not None
    assert band_for({}, [Band("none", (0, 1, 2), {})]) is None


def runs(folder: Path) -> list[Path]:
    return [
        write_run(folder / f"run{seed}", {"rollout/reward_mean": [0.1 * seed] * 6}, {**CONFIG, "seed": seed}, {})
        for seed in (0, 1, 2)
    ]


def test_a_band_of_finished_runs(tmp_path: Path) -> None:
    """0, 0.1, 0.2: 0.1 -+ (3 * 0.1 * sqrt(4/3) + 0.05), from 0 on: such a reward cannot be negative."""
    band = band_of_runs("mine", runs(tmp_path))
    assert band.seeds == (0, 1, 2) and band.window == 1 and band.settings["optim.lr"] == "0.0001"
    assert band.of("rollout/reward_mean") == (tuple(range(6)), (0.0,) * 6, (0.4964,) * 6)


def test_a_long_run_is_averaged(tmp_path: Path) -> None:
    """401 steps need windows of 3 to have at most 200 points: 133 whole ones."""
    folders = [
        write_run(tmp_path / f"{seed}", {"train/loss": [1.0] * 401}, {**CONFIG, "seed": seed}, {}) for seed in (0, 1, 2)
    ]
    band = band_of_runs("mine", folders)
    assert band.window == 3 and len((band.of("train/loss") or [()])[0]) == 133


def test_runs_that_make_no_band(tmp_path: Path) -> None:
    folders = runs(tmp_path)
    with pytest.raises(InvalidInput, match="at least 3 seeds"):
        band_of_runs("mine", folders[:2])
    with pytest.raises(InvalidInput, match="one that no other has"):
        band_of_runs("mine", [*folders, folders[0]])
    other = write_run(tmp_path / "o", {"rollout/reward_mean": [0.0] * 6}, {**CONFIG, "seed": 9, "optim": {"lr": 1}}, {})
    with pytest.raises(InvalidInput, match="runs of a band differ in the seed alone"):
        band_of_runs("mine", [*folders, other])
    (folders[2] / "artefact.json").unlink()
    with pytest.raises(InvalidInput, match="the folder of a complete run"):
        band_of_runs("mine", folders)


def test_a_setting_that_would_move_the_cursor_is_told_by_escapes() -> None:
    """The line of a verdict goes to a terminal."""
    found = band_for({**SETTINGS, "optim.lr": "\x1b[2J\nfine\u202e"}, [BAND])
    assert found == (BAND, ["optim.lr=\\x1b[2J\\nfine\\u202e (0.1)"])
    named = read_band(text_of(replace(BAND, experiment="\x1b[2J" + "x" * 10_000)), "x.json")
    assert named.experiment == "\\x1b[2J" + "x" * (LONGEST - 7)


def test_a_bound_that_no_float_holds_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no band"):
        read_band(text_of(BAND).replace("2.0", "1" + "0" * 400), "x.json")
