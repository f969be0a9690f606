"""The line while a run trains: at checkpoints when it is due or turns bad, at the end, never an error, no noise in short runs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from r1_lightning.callbacks import verdict as module
from r1_lightning.callbacks.checkpoint import ResumeCheckpoint
from r1_lightning.callbacks.verdict import VerdictLine
from r1_lightning.review.verdict import Review, Verdict
from tests.support.miniature import Miniature, fingerprint, trainer

LOGGED = "as expected"


def told(states: dict[int, str], monkeypatch: pytest.MonkeyPatch, folder: Path, every_s: float, steps: int = 6) -> int:
    """Train `steps` steps with a checkpoint at every second; a review of the run after n steps is in `states[n]`."""
    fit = trainer(steps, folder, [VerdictLine(every_s, folder), ResumeCheckpoint(folder / "checkpoints", 2)])

    def review(place: Path, at_work: bool) -> Review:
        assert place == folder and at_work
        state = states.get(fit.global_step, LOGGED)
        if state == "error":
            raise OSError("gone\naway")
        return Review(Verdict(f"{state}.", state), [], {})  # type: ignore[arg-type]

    monkeypatch.setattr(module, "review", review)
    miniature = Miniature(max_steps=steps)
    fit.fit(miniature.pretrain(), datamodule=miniature.text())
    return fingerprint(miniature.model)


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith("verdict")]


def test_at_each_checkpoint_that_is_due_and_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "COST", 0.0)
    told({}, monkeypatch, tmp_path, 0.0)
    assert lines(capsys) == [f"verdict after {step} steps: as expected." for step in (2, 4, 6)]


def test_a_short_run_speaks_at_its_end_and_when_it_turns_bad(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "COST", 0.0)
    told({4: "differs", 6: "differs", 8: "as expected"}, monkeypatch, tmp_path, 1e6, steps=10)
    assert lines(capsys) == ["verdict after 4 steps: differs.", "verdict after 10 steps: as expected."]


def test_reviews_take_a_hundredth_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each look at the clock is a second after the last: a review takes 1 s, so the next one waits for 100."""
    ticks = iter(range(10_000))
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
    told({2: "differs", 4: "failed"}, monkeypatch, tmp_path, 0.0)
    assert lines(capsys) == ["verdict after 2 steps: differs.", "verdict after 6 steps: as expected."]


def test_nothing_to_judge_is_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told(dict.fromkeys(range(7), "no band"), monkeypatch, tmp_path, 0.0)
    assert lines(capsys) == []


def test_an_error_ends_nothing_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = told(dict.fromkeys(range(7), "error"), monkeypatch, tmp_path / "a", 0.0)
    assert lines(capsys) == ["verdict: none, the run's files cannot be reviewed (gone away)"]
    miniature = Miniature(max_steps=6)
    trainer(6, tmp_path / "b", []).fit(miniature.pretrain(), datamodule=miniature.text())
    assert broken == fingerprint(miniature.model)


def test_without_a_folder_it_is_silent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    miniature = Miniature(max_steps=2)
    trainer(2, tmp_path, [VerdictLine(0.0)]).fit(miniature.pretrain(), datamodule=miniature.text())
    assert lines(capsys) == []


def test_a_time_below_zero_is_refused() -> None:
    with pytest.raises(ValueError, match=r"callbacks\.verdict\.every_s"):
        VerdictLine(-1.0)
