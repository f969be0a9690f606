"""Checkpoints: written whole or not at all, at their steps and at no other, and a resumed run is the uninterrupted one."""

from __future__ import annotations

import csv
import os
import random
import time
import tracemalloc
from itertools import count
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch

from r1_lightning.artefacts.checkpoint_file import checkpoint_to_resume, is_whole, stream
from r1_lightning.artefacts.leftovers import DAMAGED, LAST, PREVIOUS
from r1_lightning.callbacks import checkpoint
from r1_lightning.callbacks.checkpoint import ResumeCheckpoint
from r1_lightning.callbacks.interruption import Interruption
from r1_lightning.rollout.groups import RolloutMaker
from r1_lightning.run.stages.metrics_log import MetricsLog
from r1_lightning.types.errors import InvalidInput, Stopped
from r1_lightning.types.processes import Processes
from r1_lightning.types.stopping import STOP
from tests.support.damage import damaged
from tests.support.memory import LiveTensors
from tests.support.miniature import Batches, Miniature, Spy, fingerprint, trainer
from tests.support.processes import in_processes


class Noted(ResumeCheckpoint):
    """Notes the optimizer steps at which it saves."""

    def __init__(self, folder: Path, every_steps: int) -> None:
        super().__init__(folder, every_steps)
        self.saved: list[int] = []

    def save(self, trainer: L.Trainer) -> None:
        self.saved.append(trainer.global_step)
        super().save(trainer)


def stop_after(steps: int) -> Spy:
    return Spy("on_train_batch_end", lambda fit, *_: setattr(fit, "should_stop", fit.global_step >= steps))


def grpo_run(folder: Path, steps: int = 6, stop: int = 99, resume: bool = False, every: int = 1) -> Miniature:
    miniature = Miniature(max_steps=steps)
    fit = trainer(steps, folder, [ResumeCheckpoint(folder, every), stop_after(stop)])
    path = checkpoint_to_resume(folder)
    assert (path is not None) == resume
    data = miniature.rollouts()
    module = miniature.grpo(reference_refresh_steps=4)
    fit.fit(module, datamodule=data, ckpt_path=path, weights_only=True if path else None)
    return miniature


def steps_in(folder: Path) -> dict[str, int]:
    """The optimizer steps of the checkpoints in `folder`, which holds nothing else."""
    return {path.name: torch.load(path, weights_only=True)["global_step"] for path in folder.iterdir()}


def test_saved_at_multiples_and_not_at_the_end(tmp_path: Path) -> None:
    noted = Noted(tmp_path, 2)
    miniature = Miniature(max_steps=6)
    trainer(6, tmp_path, [noted]).fit(miniature.pretrain(), datamodule=miniature.text())
    assert noted.saved == [2, 4]
    assert steps_in(tmp_path) == {LAST: 4, PREVIOUS: 2}  # and nothing temporary is left


def test_once_per_step_and_never_between_micro_batches(tmp_path: Path) -> None:
    noted = Noted(tmp_path, 1)
    miniature = Miniature(max_steps=6)
    at: list[int] = []
    noted.save = lambda fit: (noted.saved.append(fit.global_step), at.append(fit.fit_loop.epoch_loop.batch_idx))
    loader = Batches(list(miniature.text().train_dataloader()))
    trainer(3, tmp_path, [noted], accumulate_grad_batches=2).fit(miniature.pretrain(), loader)
    assert noted.saved == [1, 2] and at == [1, 3]  # after the second micro-batch of a step


def test_the_state_can_be_read_without_running_code(tmp_path: Path) -> None:
    grpo_run(tmp_path, stop=3)
    state = torch.load(tmp_path / LAST, weights_only=True)
    loader = state["loops"]["fit_loop"]["state_dict"]["combined_loader"][0]
    assert loader["cursor"] == 3 and loader["dataset"]["number"] == 1
    assert state["reference"]["version"] == 0 and not any(name.startswith("reference.") for name in state["state_dict"])


@pytest.mark.parametrize("stop", [1, 2, 3, 4, 5])
def test_a_grpo_run_stopped_anywhere_ends_with_the_same_bits(tmp_path: Path, stop: int) -> None:
    whole = fingerprint(grpo_run(tmp_path / "whole").model)
    grpo_run(tmp_path / "parts", stop=stop)
    assert fingerprint(grpo_run(tmp_path / "parts", resume=True).model) == whole


def test_a_run_stopped_between_checkpoints_takes_the_lost_steps_again(tmp_path: Path) -> None:
    whole = fingerprint(grpo_run(tmp_path / "whole").model)
    grpo_run(tmp_path / "parts", stop=5, every=3)
    assert fingerprint(grpo_run(tmp_path / "parts", resume=True, every=3).model) == whole


def test_a_pretraining_run_stopped_anywhere_ends_with_the_same_bits(tmp_path: Path) -> None:
    def run(folder: Path, stop: int, resume: bool) -> int:
        miniature = Miniature(max_steps=5)
        fit = trainer(5, folder, [ResumeCheckpoint(folder, 1), stop_after(stop)])
        path = checkpoint_to_resume(folder)
        assert (path is not None) == resume
        module = miniature.pretrain(bias_update_speed=0.05)
        fit.fit(module, datamodule=miniature.text(), ckpt_path=path, weights_only=True if path else None)
        return fingerprint(miniature.model)

    whole = run(tmp_path / "whole", 99, False)
    for stop in (1, 4):
        run(tmp_path / f"{stop}", stop, False)
        assert run(tmp_path / f"{stop}", 99, True) == whole


@pytest.mark.parametrize("moment", ["writing", "replacing"])
def test_a_crash_while_saving_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    class Crash(Exception):
        pass

    def crash(*_: Any) -> None:
        raise Crash

    def spoil(state: Any, path: Path) -> None:
        path.write_bytes(b"half of a check")
        raise Crash

    def before(fit: L.Trainer, *_: Any) -> None:
        if fit.global_step == 3 and moment == "writing":
            monkeypatch.setattr(checkpoint, "stream", spoil)
        elif fit.global_step == 3:
            monkeypatch.setattr(os, "replace", crash)

    miniature = Miniature(max_steps=6)
    fit = trainer(6, tmp_path, [ResumeCheckpoint(tmp_path, 2), Spy("on_train_batch_start", before)])
    with pytest.raises(Crash):
        fit.fit(miniature.pretrain(), datamodule=miniature.text())
    monkeypatch.undo()
    assert is_whole(tmp_path / LAST) and checkpoint_to_resume(tmp_path) == tmp_path / LAST
    assert torch.load(tmp_path / LAST, weights_only=True)["global_step"] == 2


def test_memory_holds_no_second_copy_of_the_state(tmp_path: Path) -> None:
    """16 MB of tensors go to disk, and Python and torch take less than a tenth of it meanwhile."""
    state = {f"{number}": torch.randn(250_000) for number in range(16)}
    tracemalloc.start()
    with LiveTensors(state.values()) as live:
        stream(state, tmp_path / LAST)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert live.peak + peak < 1_600_000
    found = torch.load(tmp_path / LAST, weights_only=True)
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())


def test_the_global_generators_go_on_where_they_were(tmp_path: Path) -> None:
    """Our draws are keyed; those of a user's callback, or of dropout, come from the generators of Python, numpy and torch."""

    def run(folder: Path, stop: int, resume: bool = False) -> list[tuple[float, float, float]]:
        torch.manual_seed(5), np.random.seed(6), random.seed(7)  # a new process draws its weights here, for example
        if resume:
            torch.rand(3), np.random.rand(3), random.random()
        drawn: list[tuple[float, float, float]] = []
        note = Spy(
            "on_train_batch_start", lambda *_: drawn.append((float(torch.rand(())), np.random.rand(), random.random()))
        )
        fit = trainer(6, folder, [note, ResumeCheckpoint(folder, 1), stop_after(stop)])
        miniature = Miniature(max_steps=6)
        path = checkpoint_to_resume(folder)
        fit.fit(miniature.pretrain(), datamodule=miniature.text(), ckpt_path=path, weights_only=True if path else None)
        return drawn

    whole = run(tmp_path / "whole", 99)
    assert len(set(whole)) == 6
    assert [*run(tmp_path / "parts", 2), *run(tmp_path / "parts", 99, resume=True)] == whole


def test_what_a_kill_left_is_removed_at_the_next_start(tmp_path: Path) -> None:
    for name in (f".{LAST}.4711.tmp", f".{LAST}.tmp", "notes.tmp"):
        (tmp_path / name).write_bytes(b"half of a check")
    miniature = Miniature(max_steps=1)
    trainer(1, tmp_path, [ResumeCheckpoint(tmp_path, 1)]).fit(miniature.pretrain(), datamodule=miniature.text())
    assert [entry.name for entry in tmp_path.iterdir()] == ["notes.tmp"]


def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The damaged one is kept under another name, and never takes the good one's place."""
    whole = fingerprint(grpo_run(tmp_path / "whole").model)
    kinds = damaged((tmp_path / "whole" / LAST).read_bytes())
    for name, content in ((name, kinds[name]) for name in ("a half", "a flipped byte")):
        folder = tmp_path / name
        grpo_run(folder, stop=4)
        (folder / LAST).write_bytes(content)
        capsys.readouterr()
        run = grpo_run(folder, stop=4, resume=True)  # from step 3, to 4
        assert (
            f"checkpoint: {folder / LAST} is truncated or damaged, or lacks a shard; going on from the one before"
            in (capsys.readouterr().out)
        )
        assert (folder / DAMAGED).read_bytes() == content
        (folder / DAMAGED).unlink()
        (folder / "reference").rename(tmp_path / f"reference of {name}")
        assert steps_in(folder) == {LAST: 4, PREVIOUS: 3}
        (tmp_path / f"reference of {name}").rename(folder / "reference")
        assert fingerprint(run.model) != whole and fingerprint(grpo_run(folder, resume=True).model) == whole


def test_the_moment_between_both_renames_is_safe(tmp_path: Path) -> None:
    whole = fingerprint(grpo_run(tmp_path / "whole").model)
    grpo_run(tmp_path / "parts", stop=3)
    os.replace(tmp_path / "parts" / LAST, tmp_path / "parts" / PREVIOUS)
    assert fingerprint(grpo_run(tmp_path / "parts", resume=True).model) == whole


def test_a_bad_period_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"callbacks\.checkpoint\.every_steps=0"):
        ResumeCheckpoint(tmp_path, 0)


def test_metrics_are_in_their_files_before_the_checkpoint_that_counts_them(tmp_path: Path) -> None:
    """Whenever a checkpoint of step n lies there, rows 0 .. n - 1 do, too: a kill at that moment loses none."""
    log = MetricsLog(tmp_path, name="", version="logs", flush_logs_every_n_steps=1000)
    seen: list[tuple[int, int]] = []

    class Watched(ResumeCheckpoint):
        def write(self, trainer: L.Trainer) -> None:
            was_due = self.taken is not None
            super().write(trainer)
            if was_due:
                saved = torch.load(self.folder / LAST, weights_only=True)["global_step"]
                with (tmp_path / "logs" / "metrics.csv").open(newline="") as file:
                    seen.append((saved, len(list(csv.DictReader(file)))))

    miniature = Miniature(max_steps=5)
    fit = trainer(5, tmp_path, [Watched(tmp_path, 1)], logger=log, log_every_n_steps=1)
    fit.fit(miniature.pretrain(), datamodule=miniature.text())
    assert seen == [(1, 1), (2, 2), (3, 3), (4, 4)]


def _one_fails(processes: Processes, folder: Path, error: Exception) -> tuple[str, float]:
    """Train until rank 1 raises `error` as the second rollout begins; returns the error here, and the seconds until it is out."""
    make, calls, raised_s = RolloutMaker.__call__, count(1), [0.0]

    def make_or_fail(*given: Any) -> Any:
        if next(calls) == 2:
            raised_s[0] = time.monotonic()
            if processes.rank == 1:
                STOP.twice = isinstance(error, Stopped)
                raise error
        return make(*given)

    miniature = Miniature(max_steps=6, processes=processes)
    with pytest.MonkeyPatch.context() as patch, pytest.raises((InvalidInput, RuntimeError, Stopped)) as found:
        patch.setattr(RolloutMaker, "__call__", make_or_fail)
        saver = ResumeCheckpoint(folder, 1)
        fit = trainer(6, folder, [Interruption(None, saver), saver], processes)
        fit.fit(miniature.grpo(), datamodule=miniature.rollouts())
    return str(found.value), time.monotonic() - raised_s[0]


@pytest.mark.parametrize(
    "error", [InvalidInput("no verdict"), Stopped("a second signal", 143)], ids=["fault", "second signal"]
)
def test_a_process_that_fails_alone_waits_for_no_other(tmp_path: Path, error: Exception) -> None:
    """Not even between a step and its checkpoint's rename; the checkpoint of that step, 2, counts nevertheless."""
    (other, other_s), (found, found_s) = in_processes(2, _one_fails, tmp_path, error, limit_s=30.0)
    assert found == str(error) and found_s < 10.0
    assert other != found and other_s < 20.0  # the group tells it that rank 1 has gone
    assert checkpoint_to_resume(tmp_path) == tmp_path / LAST
    assert torch.load(tmp_path / LAST, weights_only=True)["global_step"] == 2
