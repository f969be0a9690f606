"""Runs of a report: a process that trains, the artefact found by its fingerprint, what a row says of its making."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest
from torch import nn

from r1_lightning.artefacts import store
from r1_lightning.artefacts.file_names import METRICS
from r1_lightning.artefacts.store import Artefact
from r1_lightning.run.commands import report_runs
from r1_lightning.run.commands.report_runs import made_by, planned, planned_fingerprint, rollout_means, train
from r1_lightning.types.errors import InvalidInput
from tests.support.commands import ROOT, SMALL_MODEL

ARGUMENTS = ("stage=pretrain", "seed=7")
FAST = ("debug=fast", "logger=none", "stage.evaluation=null")


def _complete(root: Path, fingerprint: str) -> Path:
    made = store.create(root, "pretrain", "tiny", "sums", fingerprint)
    store.save_weights(nn.Linear(2, 2), made.weights_path)
    store.complete(made, "c0ffee", {}, {}, {})
    return made.folder


def test_a_run_gives_the_artefact_of_its_own_fingerprint_whatever_it_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Another artefact of the stage lies beside it, and the process names that one."""
    node = planned(ARGUMENTS)
    wanted, other = _complete(tmp_path, node.fingerprint), _complete(tmp_path, "b" * 64)
    monkeypatch.setattr(report_runs, "PROGRAM", f"import sys; print('everything lies in {other}', *sys.argv[1:])")
    artefact, seconds = train(ARGUMENTS, tmp_path)
    assert artefact.folder == wanted and artefact.complete and seconds > 0
    assert capfd.readouterr().out == f"everything lies in {other} train stage=pretrain seed=7 paths.root={tmp_path}\n"


def test_a_run_that_leaves_nothing_finished_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = planned(ARGUMENTS)
    monkeypatch.setattr(report_runs, "PROGRAM", "")
    for _ in ("nothing", "begun"):
        with pytest.raises(
            InvalidInput, match=f"left no finished artefact .pretrain of fingerprint {node.fingerprint[:10]}"
        ):
            train(ARGUMENTS, tmp_path)
        store.create(tmp_path, "pretrain", "tiny", "sums", node.fingerprint)


def test_a_process_that_fails_is_an_error_with_its_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_runs, "PROGRAM", "import sys; sys.exit(130)")
    with pytest.raises(subprocess.CalledProcessError) as failed:
        train(ARGUMENTS, tmp_path)
    assert failed.value.returncode == 130


def test_ctrl_c_waits_for_the_process_which_saves_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The interrupt comes after 0.2 s of a process that takes 1 s to end with 130; 0.25 s is how long Python waits by itself."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(report_runs, "PROGRAM", "import sys, time; time.sleep(1); sys.exit(130)")
    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(subprocess.CalledProcessError) as failed:
            train(ARGUMENTS, tmp_path)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert failed.value.returncode == 130


@pytest.mark.slow
def test_a_real_run_is_found_and_reused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From another folder than the checkout's, in a folder whose name Hydra would read as something else."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    arguments = ["stage=pretrain", *FAST, *SMALL_MODEL]
    first, _ = train(arguments, tmp_path / "a=b, c")
    again, _ = train(arguments, tmp_path / "a=b, c")
    assert first.folder == again.folder and first.complete and first.stage == "pretrain"
    assert first.folder.parent == tmp_path / "a=b, c"


def test_fingerprints_differ_by_seed_and_rows_bear_them_short() -> None:
    fingerprint = planned_fingerprint(*ARGUMENTS)
    assert len(fingerprint) == 10 and fingerprint != planned_fingerprint("stage=pretrain", "seed=8")
    made = made_by(Artefact(Path("x"), "grpo", fingerprint + "f" * 54))
    assert made["fingerprint"] == fingerprint and set(made) == {"fingerprint", "commit"}


def test_rollout_means_are_those_of_steps_with_a_rollout(tmp_path: Path) -> None:
    (tmp_path / METRICS).parent.mkdir()
    (tmp_path / METRICS).write_text("step,rollout/reward_mean,rollout/accuracy_mean\n0,1.5,0.25\n1,,\n2,1.5,0.123456\n")
    points = list(rollout_means(Artefact(tmp_path, "grpo", "a" * 64), ["accuracy_mean"]))
    assert points == [{"step": "0", "accuracy_mean": "0.2500"}, {"step": "2", "accuracy_mean": "0.1235"}]
