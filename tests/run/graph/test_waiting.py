"""Waiting for what another process makes: who, how far, and not too many lines."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from torch import nn

from r1_lightning.artefacts import store
from r1_lightning.run.graph.waiting import Waiting
from r1_lightning.types.errors import Stopped
from r1_lightning.types.stopping import STOP
from tests.run.conftest import Command
from tests.run.fakes import Recorder


def metrics(folder: Path, text: str) -> None:
    (folder / "tensorboard").mkdir(parents=True)
    (folder / "tensorboard" / "metrics.csv").write_text(text)


def test_a_line_at_first_and_then_now_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = SimpleNamespace(config=SimpleNamespace(stage={"max_steps": 850}))
    lines: list[str] = []
    waiting = Waiting("base", SimpleNamespace(stage=stage), tmp_path, lines.append)
    for moment in (0.0, 0.2, 29.0, 30.0, 31.0, 61.0):
        monkeypatch.setattr("r1_lightning.run.graph.waiting.time.monotonic", lambda moment=moment: moment)
        waiting("pid 7")
        if moment == 30.0:
            metrics(tmp_path, "step\n0\n40\n")
    assert lines == [
        f"base: another process (pid 7) is making {tmp_path}; waiting for it",
        "base: still waiting for pid 7, which has trained no step yet",
        "base: still waiting for pid 7, which is at step 41 of 850",
    ]


def test_a_signal_ends_the_wait_of_one_of_several_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No handler raises while processes work together: the flag is met at the next try for the lock."""
    stage = SimpleNamespace(config=SimpleNamespace(stage={}))
    waiting = Waiting("base", SimpleNamespace(stage=stage), tmp_path, lambda line: None)
    monkeypatch.setattr(STOP, "alone", False)
    with STOP.listening(), store.locked(tmp_path):
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Stopped) as stopped, store.locked(tmp_path, waiting=waiting):
            pytest.fail("the lock is held")
    assert stopped.value.code == 75


def _finish(folder: Path, held: threading.Event, asked: threading.Event, is_killed: bool) -> None:
    """What another process does: it holds the base's lock until somebody waits, and completes the base unless it is killed."""
    with store.locked(folder):
        held.set()
        asked.wait(60)
        if not is_killed:
            store.save_weights(nn.Linear(8, 1), folder / store.WEIGHTS)
            digits = folder.name.rpartition("-")[2]
            store.complete(store.Artefact(folder, "pretrain", digits), "c", {}, {}, {"x": 1.0})


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_run_waits_for_a_base_that_another_makes_and_goes_on(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_killed: bool
) -> None:
    command("stage=pretrain", recorder=Recorder(faults=[KeyboardInterrupt()]))
    (base,) = (tmp_path / "runs").glob("pretrain-*")
    shown = base.relative_to(tmp_path)
    held, asked = threading.Event(), threading.Event()
    other = threading.Thread(target=_finish, args=(base, held, asked, is_killed))
    other.start()
    held.wait(60)
    say = Waiting.__call__
    monkeypatch.setattr(Waiting, "__call__", lambda self, holder: (say(self, holder), asked.set()))
    outcome = command("stage=grpo")
    other.join()
    assert (
        outcome.code == 0
        and f"base: another process (pid {os.getpid()}) is making {shown}; waiting for it" in outcome.out
    )
    assert outcome.recorder.stages == (["pretrain", "grpo"] if is_killed else ["grpo"])
    assert (f"base: {shown} is complete now, made by another process" in outcome.out) != is_killed
    assert len(list((tmp_path / "runs").glob("pretrain-*"))) == 1


def test_a_folder_that_another_process_has_just_made_is_taken(command: Command, tmp_path: Path) -> None:
    """Both find nothing; the one that comes second to making the folder finds the first's."""
    find, created = store.find, []

    def find_nothing_at_first(root: Path, stage: str, fingerprint: str) -> store.Artefact | None:
        if not created:  # the other process makes its folder right after this look
            created.append(store.create(root, stage, "tiny", "sums", fingerprint).folder)
            return None
        return find(root, stage, fingerprint)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "find", find_nothing_at_first)
        outcome = command("stage=pretrain")
    assert outcome.code == 0
    assert [path.name for path in (tmp_path / "runs").glob("pretrain-*")] == [created[0].name]
