"""Building a graph: what is there is reused, what was interrupted resumes, the rest is made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from torch import nn

from r1_lightning.artefacts import lineage, store
from r1_lightning.run.graph import build as building
from tests.run.conftest import Command, Outcome
from tests.run.fakes import Recorder


def _folder(outcome: Outcome, stage: str) -> Path:
    return next(folder for name, folder, *_ in outcome.recorder.calls if name == stage)


def test_a_missing_input_is_built_first_and_everything_is_reused(command: Command) -> None:
    first = command("stage=grpo")
    assert first.code == 0 and first.recorder.stages == ["pretrain", "grpo"]
    base, final = _folder(first, "pretrain"), _folder(first, "grpo")
    assert first.out.splitlines() == [
        f"base: missing, building it first (stage pretrain) -> {base}",
        f"grpo: running -> {final}",
        "table of grpo",
        f"grpo: everything lies in {final}",
    ]
    given = first.recorder.calls[1][2]["base"]
    assert given.complete and given.folder == base and given.stage == "pretrain"
    assert OmegaConf.load(final / store.CONFIG).stage.max_steps == 7
    record = json.loads((final / store.MARKER).read_text())
    assert record["inputs"]["base"]["fingerprint"] == given.fingerprint and record["metrics"] == {"eval/pass_at_1": 0.5}

    again = command("stage=grpo")
    assert again.code == 0 and again.recorder.stages == []
    assert again.out.splitlines()[1:] == ["table of grpo", f"grpo: everything lies in {final}"]

    other = command("stage=grpo", "optim.lr=0.5")  # the base keeps its own optimiser
    assert other.recorder.stages == ["grpo"]
    assert f"base: reusing {base} (fingerprint {given.fingerprint[:10]})" in other.out
    alone = command("stage=pretrain")
    assert alone.recorder.stages == [] and "table of pretrain" in alone.out


def test_an_incomplete_stage_resumes_in_its_folder(command: Command) -> None:
    recorder = Recorder(faults=[KeyboardInterrupt()])
    command("stage=grpo", recorder=recorder)
    second = command("stage=grpo", recorder=recorder)
    base = recorder.calls[0][1]
    assert second.code == 0 and recorder.stages == ["pretrain", "pretrain", "grpo"]
    assert recorder.calls[1][1] == base and f"base: resuming {base}" in second.out


def test_fresh_makes_a_sibling_of_the_target_only(command: Command, tmp_path: Path) -> None:
    first = command("stage=grpo")
    old = _folder(first, "grpo")
    before = {path: path.read_bytes() for path in (tmp_path / "runs").rglob("*") if path.is_file()}
    second = command("stage=grpo", "fresh=true")
    new = _folder(second, "grpo")
    assert second.recorder.stages == ["grpo"] and new.name == old.name + "-2"
    assert all(path.read_bytes() == text for path, text in before.items() if path.name != store.LOCK)
    assert str(new) in command("stage=grpo").out.splitlines()[-1]  # the newest complete one is used from now on


def test_an_incomplete_sibling_does_not_hide_a_complete_one(command: Command) -> None:
    old = _folder(command("stage=pretrain"), "pretrain")
    command("stage=pretrain", "fresh=true", recorder=Recorder(faults=[KeyboardInterrupt()]))
    outcome = command("stage=pretrain")
    assert outcome.recorder.stages == [] and str(old) == outcome.out.split()[-1]


def _fingerprint(outcome: Outcome) -> str:
    assert outcome.code == 0, outcome.err
    return store.open_artefact(_folder(outcome, "pretrain")).fingerprint


def test_a_stage_that_leaves_no_weights_is_not_complete(command: Command) -> None:
    def lazy(*_: object) -> dict[str, float]:
        return {}

    outcome = command("stage=pretrain", recorder=lazy)
    assert outcome.code == 2 and "the stage wrote no weights.safetensors" in outcome.err


def test_a_folder_finished_meanwhile_is_not_run_again(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process completes the artefact between our look and our lock."""
    locked = store.locked

    def finish_first(folder: Path, *more: object) -> object:
        model = nn.Linear(8, 1)
        store.save_weights(model, folder / store.WEIGHTS)
        digest = folder.name.rpartition("-")[2]
        store.complete(store.Artefact(folder, "pretrain", digest), "c", {}, {}, {"x": 1.0})
        return locked(folder, *more)

    monkeypatch.setattr(store, "locked", finish_first)
    outcome = command("stage=pretrain")
    assert outcome.code == 0 and outcome.recorder.stages == [] and "x  1" in outcome.out


def test_the_commit_is_that_of_the_code_which_began(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkout that moves on while a run lasts does not change what the run was made with."""
    now = ["first"]
    monkeypatch.setattr(lineage, "commit", lambda: now[0])

    class Moving(Recorder):
        def __call__(self, *arguments: object) -> object:
            now[0] += "+"
            return super().__call__(*arguments)

    recorder = Moving(faults=[KeyboardInterrupt()])
    assert command("stage=pretrain", recorder=recorder).code == 130
    assert command("stage=pretrain", recorder=recorder).code == 0
    record = json.loads((recorder.calls[0][1] / store.MARKER).read_text())
    assert (record["commit"], record["commits"]) == ("first+", ["first", "first+"])


def test_a_result_of_other_code_is_shown_with_a_line_that_says_so(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lineage, "commit", lambda: "a" * 40)
    assert command("stage=grpo").code == 0
    assert "made by commit" not in command("stage=grpo").out
    monkeypatch.setattr(lineage, "commit", lambda: "a" * 40 + "-dirty")
    again = command("stage=grpo")
    assert again.recorder.stages == []
    assert "made by commit aaaaaaaaaa, the code here is aaaaaaaaaa-dirty; fresh=true makes it anew" in again.out


@pytest.mark.parametrize("lock", [store.LOCK, f"{store.LOCK}-1-of-2"])
def test_leftovers_are_removed_unless_a_process_is_at_work_there(tmp_path: Path, lock: str) -> None:
    """What looks like a killed process's file may be one that another process is writing, as long as that holds its lock."""
    being_written = tmp_path / f".{store.TABLE}.4711.tmp"
    with store.locked(tmp_path, lock):
        being_written.write_text("half a tab")
        building._clear_up(tmp_path)
        assert being_written.exists()
    building._clear_up(tmp_path)
    assert not being_written.exists()
