"""What reports over seeds share: files that grow under one header, rows of another recipe, runs that are made once."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest
from torch import nn

from r1_lightning.artefacts import store
from r1_lightning.evaluation.curves import spread
from r1_lightning.run.commands import (
    family_report,
    language_report,
    moe_report,
    reasoning_report,
    reward_hacking_report,
)
from r1_lightning.run.commands import report as reports
from r1_lightning.run.commands.report import (
    EXPERIMENT,
    Report,
    Row,
    append,
    planned_fingerprint,
    read,
    report_options,
    require_recipe,
    train,
    write_report,
)
from r1_lightning.types.errors import InvalidInput


def test_rows_are_added_under_one_header(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    assert read(path) == []
    append(path, ("seed", "value"), [{"seed": 0, "value": 1}])
    append(path, ("seed", "value"), [{"seed": 1, "value": 2}])
    assert path.read_text().splitlines() == ["seed,value", "0,1", "1,2"]
    assert read(path) == [{"seed": "0", "value": "1"}, {"seed": "1", "value": "2"}]


def test_a_run_shows_what_it_prints_and_gives_the_last_artefact_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A graph names its target and then prints its tables; a bar is passed on in the middle of a line."""
    made = store.create(tmp_path, "grpo", "tiny", "sums", "a" * 64)
    store.save_weights(nn.Linear(2, 2), made.weights_path)
    store.complete(made, "c0ffee", {}, {}, {})
    (tmp_path / "scripts").mkdir()
    program = tmp_path / "scripts" / "train.py"
    program.write_text(
        f"import sys\nprint('bar ███', end='\\r')\nprint('base: everything lies in nowhere')\n"
        f"print('grpo: everything lies in {made.folder}')\nprint('| stage | minutes |')\nsys.exit(len(sys.argv) - 2)\n",
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONIOENCODING", "utf-8")
    artefact, seconds = train(["seed=1"])
    assert artefact.folder == made.folder and seconds > 0
    assert capfd.readouterr().out.startswith("bar ███\rbase: everything lies in nowhere\n")
    with pytest.raises(subprocess.CalledProcessError):
        train(["seed=1", "and=more"])


def test_a_run_that_fails_ends_the_report_with_a_line_and_its_own_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def make(seed: int) -> tuple[list, list]:
        raise subprocess.CalledProcessError(130, "train.py")

    report = Report(
        {"seed": int}, ("seed",), [(7,)], lambda seed: f"seed {seed}", lambda seed: [], make, lambda rows: ""
    )
    assert write_report(report, tmp_path) == 130
    assert capsys.readouterr().err.startswith("error: seed 7 was not made;") and read(tmp_path / "results.csv") == []


def test_a_row_of_another_recipe_is_refused() -> None:
    arguments = [EXPERIMENT, "seed=3"]
    now = planned_fingerprint(*arguments)
    assert now != planned_fingerprint(EXPERIMENT, "seed=4")
    require_recipe(Path("r.csv"), "seed 3", now, arguments)
    with pytest.raises(InvalidInput, match=f"r.csv: seed 3 has fingerprint 0123456789 and would now have {now}"):
        require_recipe(Path("r.csv"), "seed 3", "0123456789", arguments)


class _Runs:
    """Runs that are noted; `fails` is raised in place of the rows of one."""

    def __init__(self, fails: int | None = None) -> None:
        self.made: list[int] = []
        self.fails = fails

    def __call__(self, seed: int) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
        if seed == self.fails:
            raise RuntimeError("killed")
        self.made.append(seed)
        made = {"fingerprint": planned_fingerprint(EXPERIMENT, f"seed={seed}")}
        return [{"seed": seed, "value": seed / 10, **made}], [{"seed": seed, "step": step} for step in (0, 1)]


def _report(runs: _Runs, seeds: Sequence[int]) -> Report:
    def render(rows: Sequence[Row]) -> str:
        return spread([float(row["value"]) for row in rows], digits=2) + "\n"

    def draw(points: Sequence[Row], path: Path) -> None:
        path.write_text(f"{len(points)} points")

    return Report(
        key={"seed": int},
        fields=("seed", "value", "fingerprint"),
        runs=[(seed,) for seed in seeds],
        label=lambda seed: f"seed {seed}",
        overrides=lambda seed: [EXPERIMENT, f"seed={seed}"],
        make=runs,
        render=render,
        curve_fields=("seed", "step"),
        draw=draw,
    )


def test_runs_are_made_once_and_an_ended_report_leaves_what_it_has(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = _Runs(fails=4)
    with pytest.raises(RuntimeError, match="killed"):
        write_report(_report(runs, [3, 4]), tmp_path)
    assert (tmp_path / "table.md").read_text() == "0.30 [0.30, 0.30]\n"
    # A kill between the points of seed 4 and its rows: the points are there and are not added again.
    append(tmp_path / "curves.csv", ("seed", "step"), [{"seed": 4, "step": step} for step in (0, 1)])
    runs.fails = None
    assert write_report(_report(runs, [3, 4]), tmp_path) == 0
    assert runs.made == [3, 4]
    assert [row["seed"] for row in read(tmp_path / "curves.csv")] == ["3", "3", "4", "4"]
    assert (tmp_path / "curve.png").read_text() == "4 points"
    assert capsys.readouterr().out == f"seed 3: already in {tmp_path / 'results.csv'}\n0.35 [0.30, 0.40]\n\n"


def test_without_seeds_a_report_is_drawn_from_its_rows_and_without_rows_nothing_is(tmp_path: Path) -> None:
    assert write_report(_report(_Runs(), [3]), tmp_path) == 0
    (tmp_path / "table.md").unlink()
    assert report_options("What it is.", "x", [1]).parse_args(["--seeds"]).seeds == []
    assert write_report(_report(_Runs(), []), tmp_path) == 0
    assert (tmp_path / "table.md").read_text() == "0.30 [0.30, 0.30]\n"
    assert write_report(_report(_Runs(), []), tmp_path / "empty") == 0
    assert list((tmp_path / "empty").iterdir()) == []


def test_rows_of_a_control_may_have_another_fingerprint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _add_old_row(tmp_path)
    report = _report(_Runs(), [4])
    assert write_report(report, tmp_path) == 2
    assert "results.csv: seed 3 has fingerprint 0123 and would now have" in capsys.readouterr().err
    assert not (tmp_path / "table.md").exists()
    assert write_report(dataclasses.replace(report, is_of_run=lambda row: False), tmp_path) == 0


def test_rows_of_an_old_recipe_are_drawn_and_only_added_to_by_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _add_old_row(tmp_path)
    assert write_report(_report(_Runs(), []), tmp_path) == 0
    assert capsys.readouterr().out == "0.50 [0.50, 0.50]\n\n"
    assert write_report(_report(_Runs(), [3]), tmp_path) == 0  # it is there: nothing is made, and a note says what of
    seen = capsys.readouterr()
    assert seen.out.startswith(f"note: {tmp_path / 'results.csv'}: seed 3 has fingerprint 0123 and would now have ")
    assert seen.out.endswith("0.50 [0.50, 0.50]\n\n") and seen.err == ""
    runs = _Runs()
    assert write_report(_report(runs, [3, 4]), tmp_path) == 2 and runs.made == []
    assert capsys.readouterr().err.startswith("error: ")


def _add_old_row(folder: Path) -> None:
    append(folder / "results.csv", ("seed", "value", "fingerprint"), [{"seed": 3, "value": 0.5, "fingerprint": "0123"}])


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (reasoning_report, "r1_zero_tiny"),
        (family_report, "r1_tiny"),
        (moe_report, "moe_in_rl"),
        (language_report, "language_consistency"),
        (reward_hacking_report, "reward_hacking"),
    ],
)
def test_without_seeds_a_committed_report_is_drawn_from_its_rows_whatever_the_recipe_is_today(
    module: ModuleType, name: str, tmp_path: Path, repo_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compare(*arguments: str) -> str:
        raise AssertionError("today's fingerprint is nobody's concern")

    monkeypatch.setattr(reports, "planned_fingerprint", compare)
    shutil.copytree(repo_root / "reports" / name, tmp_path / name)
    written = [path for path in (tmp_path / name).iterdir() if path.name in ("table.md", "curve.png", "expected.json")]
    for path in written:
        path.unlink()
    monkeypatch.setattr(sys, "argv", ["report", "--seeds", "--out", str(tmp_path / name)])
    assert module.main() == 0
    for path in (repo_root / "reports" / name).iterdir():
        assert path.is_dir() or path.suffix == ".png" or (tmp_path / name / path.name).read_bytes() == path.read_bytes()
    assert written and all(path.is_file() for path in written)
