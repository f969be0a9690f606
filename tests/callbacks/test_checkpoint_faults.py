"""Disks that fill up, go away or set limits while a checkpoint is written: one line, and the run goes on from the last one."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from r1_lightning.artefacts.checkpoint_file import checkpoint_to_resume, stream
from r1_lightning.artefacts.leftovers import LAST, PREVIOUS
from r1_lightning.callbacks.checkpoint import ResumeCheckpoint
from r1_lightning.types.errors import InvalidInput
from tests.callbacks.test_checkpoint import steps_in
from tests.support.miniature import Miniature, Spy, trainer


def full_disk(folder: Path) -> None:
    """Let the temporary file stand on a device that is full."""
    (folder / f".{LAST}.{os.getpid()}.tmp").symlink_to("/dev/full")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, which Linux has")
def test_a_full_disk_is_one_line_about_the_folder_and_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))  # not through the system's temporary folder
    spy = Spy("on_train_batch_start", lambda fit, *_: full_disk(tmp_path) if fit.global_step == 3 else None)
    miniature = Miniature(max_steps=6)
    with pytest.raises(InvalidInput, match="the disk is full") as refusal:
        trainer(6, tmp_path, [ResumeCheckpoint(tmp_path, 2), spy]).fit(
            miniature.pretrain(), datamodule=miniature.text()
        )
    assert f"the output folder {tmp_path} cannot be written" in str(refusal.value)
    assert [entry.name for entry in tmp_path.iterdir()] == [LAST]
    assert torch.load(tmp_path / LAST, weights_only=True)["global_step"] == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, which Linux has")
@pytest.mark.parametrize("last_is_whole", [True, False])
def test_a_full_disk_gets_the_room_of_the_previous_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], last_is_whole: bool
) -> None:
    """Only if the last one is whole: else it is the previous one that a run would go on from."""

    def fill(fit: L.Trainer, *_: Any) -> None:
        if fit.global_step == 2:
            full_disk(tmp_path)
            unlink = Path.unlink
            monkeypatch.setattr(Path, "unlink", lambda path, **more: (unlink(path, **more), room(path)))
            if not last_is_whole:
                (tmp_path / LAST).write_bytes(b"half of a check")

    def room(path: Path) -> None:
        if path.name == PREVIOUS:
            os.remove(tmp_path / f".{LAST}.{os.getpid()}.tmp")

    miniature = Miniature(max_steps=6)
    callbacks = [ResumeCheckpoint(tmp_path, 1), Spy("on_train_batch_start", fill)]
    run = trainer(4, tmp_path, callbacks)
    if last_is_whole:
        run.fit(miniature.pretrain(), datamodule=miniature.text())
        assert f"checkpoint: the disk is full; {tmp_path / PREVIOUS} makes room" in capsys.readouterr().out
        assert steps_in(tmp_path) == {LAST: 3, PREVIOUS: 2}
    else:
        with pytest.raises(InvalidInput, match="the disk is full"):
            run.fit(miniature.pretrain(), datamodule=miniature.text())
        assert checkpoint_to_resume(tmp_path) == tmp_path / PREVIOUS


def test_a_folder_that_goes_away_is_one_line_and_is_not_made_again(tmp_path: Path) -> None:
    """Where a disk was unmounted, a new folder would lie on the disk below."""
    folder = tmp_path / "artefact"
    folder.mkdir()
    gone = Spy("on_train_batch_start", lambda fit, *_: folder.rename(tmp_path / "x") if fit.global_step == 3 else None)
    miniature = Miniature(max_steps=6)
    with pytest.raises(InvalidInput, match=r"it is no longer there \(was it removed, or its disk unmounted\?\)"):
        trainer(6, folder, [gone, ResumeCheckpoint(folder / "checkpoints", 1)]).fit(
            miniature.pretrain(), datamodule=miniature.text()
        )
    kept = checkpoint_to_resume(tmp_path / "x" / "checkpoints")
    assert not folder.exists() and kept is not None and torch.load(kept, weights_only=True)["global_step"] == 2


def test_a_file_that_may_not_grow_is_one_line(tmp_path: Path) -> None:
    """`ulimit -f` at 20 kB: Python ignores the signal, and the write fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    miniature = Miniature(max_steps=4)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(InvalidInput, match="a file is larger than the limit for one"):
            trainer(4, tmp_path, [ResumeCheckpoint(tmp_path, 1)]).fit(miniature.pretrain(), datamodule=miniature.text())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk in memory with room for two checkpoints of the miniature and a half."""
    stream({"weights": list(Miniature(max_steps=1).model.state_dict().values())}, tmp_path / "size")
    room, disk = 3 * (tmp_path / "size").stat().st_size, tmp_path / "disk"  # weights and two moments: one checkpoint
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={int(2.6 * room)}", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a disk")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], capture_output=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (["mount", "-o", "remount,ro"], "cannot be written: it is read-only"),
        (["umount", "-l"], "it is no longer there"),
    ],
)
def test_a_real_disk_that_is_small_and_then_fails(
    small_disk: Path, capsys: pytest.CaptureFixture[str], fault: list[str], words: str
) -> None:
    """Four checkpoints where two and a half fit, each of which leaves a whole one; then read-only, or unmounted."""
    folder = small_disk / "artefact"
    folder.mkdir()

    def at(fit: L.Trainer, *_: Any) -> None:
        if fit.global_step == 4:
            subprocess.run([*fault, str(small_disk)], check=True)

    miniature = Miniature(max_steps=6)
    run = trainer(6, folder, [ResumeCheckpoint(folder / "checkpoints", 1), Spy("on_train_batch_start", at)])
    with pytest.raises(InvalidInput) as refusal:
        run.fit(miniature.pretrain(), datamodule=miniature.text())
    assert words in str(refusal.value) and "\n" not in str(refusal.value)
    assert "the disk is full; " in capsys.readouterr().out
    if fault[0] == "umount":
        assert list(small_disk.iterdir()) == [], "nothing goes to the disk below"
        return
    last = checkpoint_to_resume(folder / "checkpoints")
    assert last == folder / "checkpoints" / LAST and torch.load(last, weights_only=True)["global_step"] == 4
