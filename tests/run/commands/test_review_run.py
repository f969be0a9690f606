"""The command that writes the page of a run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from r1_lightning.review.expected import read_band
from r1_lightning.run.commands import review_run
from tests.architecture.house import ROOT
from tests.review.page.examples import make_run


def called(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["r1 review-run", *map(str, words)])
    return review_run.main()


def test_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_run(tmp_path)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert called(monkeypatch, folder) == 0
    sentence, where = capsys.readouterr().out.splitlines()
    assert where == f"{folder / 'review.html'}: 0.0 MB" and sentence in (folder / "review.html").read_text()
    assert {path: path.read_bytes() for path in before} == before
    assert [path.name for path in folder.rglob("*") if path.is_file() and path not in before] == ["review.html"]


def test_two_runs_to_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [make_run(tmp_path), make_run(tmp_path, "grpo-x-0000000002")]
    assert called(monkeypatch, *folders, "--out", tmp_path / "both.html") == 0
    assert "</small> beside grpo-x-seed0 <small>grpo-x-0000000002</small>" in (tmp_path / "both.html").read_text()
    assert len(capsys.readouterr().out.splitlines()) == 3 and not (folders[0] / "review.html").exists()


def test_what_is_no_run_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in ([tmp_path / "absent"], [make_run(tmp_path), tmp_path]):
        assert called(monkeypatch, *words) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: run=") and error.count("\n") == 1
    assert called(monkeypatch, make_run(tmp_path, "b"), "--out", tmp_path / "absent" / "x" / "y.html") == 2
    assert "cannot be written" in capsys.readouterr().err


def test_a_band(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [make_run(tmp_path, f"grpo-x-000000000{seed}", seed=seed, gain=1 + seed / 10) for seed in range(3)]
    out = tmp_path / "band.json"
    assert called(monkeypatch, "--band", "mine_0.5", *folders, "--out", out) == 0
    assert capsys.readouterr().out == f"{out}: the band of 2 curves over 3 seeds\n"
    band = read_band(out.read_text(), "band.json")
    assert band.experiment == "mine_0.5" and band.seeds == (0, 1, 2)
    assert set(band.series) == {"rollout/reward_mean", "rollout/completion_tokens_mean"}
    for words in (["--band", "../x", *folders], ["--band", "x", *folders[:2]], [*folders]):
        assert called(monkeypatch, *words) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_a_band_lies_beside_its_runs_where_reviews_find_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [make_run(tmp_path, f"grpo-x-000000000{seed}", seed=seed, gain=1 + seed / 10) for seed in range(4)]
    monkeypatch.chdir(tmp_path)
    assert called(monkeypatch, "--band", "mine", *(folder.name for folder in folders[:3])) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'expected' / 'mine.json'}: the band of 2 curves over 3 seeds\n"
    assert called(monkeypatch, folders[3].name) == 0
    assert "in the band of mine (3 seeds)" in capsys.readouterr().out
    (tmp_path / "expected" / "odd.json").write_text("{}")
    assert called(monkeypatch, folders[3].name) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path / 'expected' / 'odd.json'} is not allowed: it is no band")
    assert error.count("\n") == 1


def test_a_band_that_cannot_be_written_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [make_run(tmp_path, f"grpo-x-000000000{seed}", seed=seed) for seed in range(3)]
    (tmp_path / "expected").write_text("a file")
    assert called(monkeypatch, "--band", "mine", *folders) == 2
    assert "a file stands in its place" in capsys.readouterr().err
    assert called(monkeypatch, "--band", "mine", *folders, "--out", tmp_path / "absent" / "x.json") == 2
    error = capsys.readouterr().err
    assert "cannot be written" in error and error.count("\n") == 1


def test_it_loads_no_torch() -> None:
    code = "import sys, r1_lightning.run.commands.review_run; print({'torch', 'lightning', 'matplotlib'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "set()", done.stderr
