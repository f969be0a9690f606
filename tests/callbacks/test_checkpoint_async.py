"""Asynchronous checkpoints: training goes on while a thread writes, and all else is as with synchronous ones."""

from __future__ import annotations

import errno
import os
import random
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from torch import Tensor

from r1_lightning.artefacts import shard_files
from r1_lightning.artefacts.checkpoint_file import checkpoint_to_resume, stream
from r1_lightning.artefacts.leftovers import CHECKPOINTS, LAST, PREVIOUS
from r1_lightning.callbacks import checkpoint
from r1_lightning.callbacks.checkpoint import ResumeCheckpoint
from r1_lightning.callbacks.interruption import Interruption
from r1_lightning.functional.shards import whole
from r1_lightning.types.errors import InvalidInput, Stopped
from r1_lightning.types.processes import Processes
from r1_lightning.types.stopping import REPEATED_S, STOP
from tests.callbacks.test_checkpoint import steps_in, stop_after
from tests.support.miniature import Miniature, Spy, fingerprint, sharded, trainer
from tests.support.processes import in_processes

WAIT_S = 20.0  # a hang, not a slow machine


def pretrain(folder: Path, *callbacks: L.Callback, every: int = 1, steps: int = 6, is_async: bool = True) -> int:
    """Train, from the checkpoint that is there if there is one; returns the weights' fingerprint."""
    torch.manual_seed(5), np.random.seed(6), random.seed(7)  # their states are in a checkpoint
    miniature, saver = Miniature(max_steps=steps), ResumeCheckpoint(folder, every, is_async)
    fit, path = trainer(steps, folder, [Interruption(None, saver), saver, *callbacks]), checkpoint_to_resume(folder)
    fit.fit(miniature.pretrain(), miniature.text(), ckpt_path=path, weights_only=True if path else None)
    return fingerprint(miniature.model)


def before(step: int, act: Callable[[], None]) -> Spy:
    """Calls `act` when the batch after `step` begins."""
    return Spy("on_train_batch_start", lambda fit, *_: act() if fit.global_step == step else None)


class SlowDisk:
    """Holds the write of a step's checkpoint until it is `free`; counts what is written at one time."""

    def __init__(self, patch: pytest.MonkeyPatch, step: int) -> None:
        self.step, self.free, self.begun = step, threading.Event(), threading.Event()
        self.now = self.most = 0
        patch.setattr(checkpoint, "stream", self.stream)

    def stream(self, state: Any, path: Path, poll: Callable[[], None]) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        if state["global_step"] == self.step:
            self.begun.set()
            assert self.free.wait(WAIT_S)
        stream(state, path, poll)
        self.now -= 1


def leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [(key, leaf) for key, item in value.items() for leaf in leaves(item)]
    if isinstance(value, (list, tuple)):
        return [leaf for item in value for leaf in leaves(item)]
    return [value.tolist() if isinstance(value, Tensor) else value]


def test_training_goes_on_and_the_checkpoint_is_that_of_its_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two steps move the weights while the state of step 2 waits for the disk; it is written as a synchronous saving does."""
    with pytest.raises(ZeroDivisionError):
        pretrain(tmp_path / "one", before(3, lambda: 1 // 0), every=2, is_async=False)
    disk, seen = SlowDisk(monkeypatch, 2), []

    def look() -> None:
        assert disk.begun.wait(WAIT_S)
        seen.extend(path.name for path in (tmp_path / "other").glob(f"{LAST}*"))
        disk.free.set()

    with pytest.raises(ZeroDivisionError):  # which waits for the write under way
        pretrain(tmp_path / "other", before(3, look), before(3, lambda: 1 // 0), every=2)
    assert seen == []  # it was not there yet, a step later
    one, other = (torch.load(tmp_path / name / LAST, weights_only=True) for name in ("one", "other"))
    assert leaves(one) == leaves(other)


def test_the_next_saving_waits_and_the_last_checkpoint_is_kept_until_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, kept = SlowDisk(monkeypatch, 2), []

    def look() -> None:
        assert disk.begun.wait(WAIT_S)
        kept.append(torch.load(tmp_path / LAST, weights_only=True)["global_step"])
        threading.Timer(0.2, disk.free.set).start()

    pretrain(tmp_path, before(2, look))
    assert kept == [1] and disk.most == 1
    assert steps_in(tmp_path) == {LAST: 5, PREVIOUS: 4}


def grpo(folder: Path, stop: int) -> int:
    miniature, path = Miniature(max_steps=6), checkpoint_to_resume(folder)
    fit = trainer(6, folder, [ResumeCheckpoint(folder, 1, is_async=True), stop_after(stop)])
    module = miniature.grpo(reference_refresh_steps=2)
    fit.fit(module, miniature.rollouts(), ckpt_path=path, weights_only=True if path else None)
    return fingerprint(miniature.model)


@pytest.mark.slow
def test_a_run_stopped_twice_ends_with_the_same_bits(tmp_path: Path) -> None:
    whole_run = grpo(tmp_path / "whole", 99)
    for stop in (3, 4, 99):
        found = grpo(tmp_path / "parts", stop)
    assert found == whole_run


def full(state: Any, path: Path, poll: Callable[[], None]) -> None:
    raise OSError(errno.ENOSPC, "No space left on device", str(path))


@pytest.mark.parametrize("every, most", [(2, 3), (5, 6)])
def test_a_failed_write_ends_the_run_by_the_line_of_a_synchronous_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int, most: int
) -> None:
    """Before the next step or the one after, which saves, or at the end."""
    monkeypatch.setattr(checkpoint, "stream", full)
    steps: list[int] = []
    count = Spy("on_train_batch_end", lambda fit, *_: steps.append(fit.global_step))
    with pytest.raises(InvalidInput, match=f"the output folder {tmp_path} cannot be written: the disk is full"):
        pretrain(tmp_path, count, every=every)
    assert every <= steps[-1] <= most
    assert list(tmp_path.iterdir()) == []


def test_a_signal_waits_for_the_write_under_way_and_saves_its_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = SlowDisk(monkeypatch, 2)

    def signalled() -> None:
        assert disk.begun.wait(WAIT_S)
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Timer(0.2, disk.free.set).start()

    with STOP.listening(), STOP.between_polls():
        pretrain(tmp_path, before(2, signalled), every=2)
    assert steps_in(tmp_path) == {LAST: 3, PREVIOUS: 2}


def test_a_second_signal_leaves_at_once_and_the_write_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = SlowDisk(monkeypatch, 3)

    def signalled() -> None:
        assert disk.begun.wait(WAIT_S)
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
            STOP.asked_s -= REPEATED_S

    with STOP.listening(), STOP.between_polls(), pytest.raises(Stopped):
        pretrain(tmp_path, before(3, signalled))
        raise AssertionError("it must not come here")
    assert not disk.free.is_set() and steps_in(tmp_path)[LAST] == 2
    STOP.twice = True  # what `listening` has put back, and a process keeps to its end
    disk.free.set()
    for thread in threading.enumerate():
        if thread.name.startswith("checkpoint"):
            thread.join(0.2)
    STOP.twice = False
    assert steps_in(tmp_path) == {LAST: 2, PREVIOUS: 1}


def _shared(processes: Processes, folder: Path, stop: int, fault: str = "") -> Any:
    """A sharded run with asynchronous checkpoints: its whole weights, or its error."""
    miniature = Miniature(max_steps=6, processes=processes)
    saver = ResumeCheckpoint(folder / CHECKPOINTS, 1, is_async=True)
    settings = sharded(processes) if processes.count > 1 else {}
    fit = trainer(6, folder, [saver, stop_after(stop)], processes, **settings)
    path, module = checkpoint_to_resume(folder / CHECKPOINTS), miniature.grpo(reference_refresh_steps=2)
    with pytest.MonkeyPatch.context() as patch:
        if fault and processes.rank == 1:
            patch.setattr(shard_files, "write_tensors", _broken)
        try:
            fit.fit(module, miniature.rollouts(), ckpt_path=path, weights_only=True if path else None)
        except InvalidInput as error:
            return str(error)
    return {name: whole(tensor).clone() for name, tensor in module.backbone.state_dict().items()}


def _broken(path: Path, *_: Any) -> None:
    raise OSError(errno.EIO, "Input/output error", str(path))


@pytest.mark.slow
def test_processes_that_share_the_weights_write_together(tmp_path: Path) -> None:
    (undisturbed, _) = in_processes(2, _shared, tmp_path / "whole", 99, limit_s=120.0)
    in_processes(2, _shared, tmp_path / "parts", 3, limit_s=120.0)
    names = sorted(path.name for path in (tmp_path / "parts" / CHECKPOINTS).iterdir())
    assert names == [LAST, PREVIOUS, "shards-1", "shards-2", "shards-3"]
    for found in in_processes(2, _shared, tmp_path / "parts", 99, limit_s=120.0):
        assert all(torch.equal(found[name], tensor) for name, tensor in undisturbed.items())


@pytest.mark.slow
def test_the_disk_of_one_process_ends_all_by_its_line(tmp_path: Path) -> None:
    first, second = in_processes(2, _shared, tmp_path, 99, "disk", limit_s=60.0)
    assert "the disk reports an error" in second and str(tmp_path / CHECKPOINTS / "shards-1") in second
    assert first.startswith("checkpoint=") and first.endswith("another process could not write its part")
    assert not (tmp_path / CHECKPOINTS / LAST).exists()
