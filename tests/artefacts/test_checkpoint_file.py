"""The file of a checkpoint: any damage is found before it is read, and one line says what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from r1_lightning.artefacts.checkpoint_file import checkpoint_to_resume, is_whole, stream
from r1_lightning.artefacts.leftovers import LAST, PREVIOUS
from r1_lightning.callbacks.checkpoint import ResumeCheckpoint
from r1_lightning.types.errors import InvalidInput
from tests.support.damage import damaged
from tests.support.miniature import Miniature, trainer


def pretrain(folder: Path, steps: int) -> None:
    """Leave the checkpoints of all steps but the last in `folder`."""
    miniature = Miniature(max_steps=steps)
    trainer(steps, folder, [ResumeCheckpoint(folder, 1)]).fit(miniature.pretrain(), datamodule=miniature.text())


def test_nothing_to_resume_without_a_checkpoint(tmp_path: Path) -> None:
    assert checkpoint_to_resume(tmp_path) is None and checkpoint_to_resume(tmp_path / "absent") is None


def test_damaged_checkpoints_are_refused_in_one_line_that_names_them(tmp_path: Path) -> None:
    pretrain(tmp_path, 3)
    last, previous = tmp_path / LAST, tmp_path / PREVIOUS
    assert checkpoint_to_resume(tmp_path) == last
    previous.write_bytes(previous.read_bytes()[:-1])
    assert checkpoint_to_resume(tmp_path) == last
    for name, content in damaged(last.read_bytes()).items():
        last.write_bytes(content)
        with pytest.raises(InvalidInput, match=f"truncated or damaged, and so is {previous}; remove both") as refusal:
            checkpoint_to_resume(tmp_path)
        assert f"checkpoint={str(last)!r}" in str(refusal.value) and "\n" not in str(refusal.value), name
        assert last.read_bytes() == content, "a refusal must not remove what somebody may still want"
    previous.unlink()
    with pytest.raises(InvalidInput, match="the file is truncated or damaged; remove it to start this stage anew"):
        checkpoint_to_resume(tmp_path)


def test_no_byte_of_a_checkpoint_can_change_unnoticed(tmp_path: Path) -> None:
    """Nor one in the archive's directory, which no check sum of torch's covers: another offset there is another tensor."""
    pretrain(tmp_path, 2)
    path = tmp_path / LAST
    whole = path.read_bytes()
    directory = range(whole.index(b"PK\x01\x02"), len(whole))
    for place in [*range(0, len(whole), 997), *directory[::211], *range(len(whole) - 100, len(whole))]:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x5A]) + whole[place + 1 :])
        assert not is_whole(path), place
    path.write_bytes(whole)
    assert is_whole(path)


def test_a_checkpoint_without_a_check_sum_of_its_own_is_read(tmp_path: Path) -> None:
    """As they were before: torch's file, whose records have check sums."""
    path = tmp_path / LAST
    torch.save({"weights": torch.arange(1000)}, path)
    assert is_whole(path) and checkpoint_to_resume(tmp_path) == path
    whole = path.read_bytes()
    for damage in (whole[:-1], whole[:2000] + b"x" + whole[2001:]):
        path.write_bytes(damage)
        assert not is_whole(path)


@pytest.mark.parametrize("state", [[1, 2], {"step": Path("x")}])
def test_what_is_no_state_or_would_run_code_is_refused(tmp_path: Path, state: Any) -> None:
    stream(state, tmp_path / LAST)
    assert is_whole(tmp_path / LAST)
    with pytest.raises(InvalidInput, match="remove it to start this stage anew"):
        checkpoint_to_resume(tmp_path)


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path: Path) -> None:
    """By the digits of the fingerprint, which the folder's name has."""
    ours, theirs = tmp_path / "pretrain-tiny-sums-0123456789", tmp_path / "pretrain-tiny-sums-9876543210-2"
    for folder in (ours, theirs):
        folder.mkdir()
        checkpoints = folder / "checkpoints"
        pretrain(checkpoints, 2)
        assert checkpoint_to_resume(checkpoints) == checkpoints / LAST
    (theirs / "checkpoints" / LAST).write_bytes((ours / "checkpoints" / LAST).read_bytes())
    with pytest.raises(
        InvalidInput, match=r"of another configuration \(fingerprint 0123456789, this run's is 9876543210\)"
    ):
        checkpoint_to_resume(theirs / "checkpoints")


def test_a_missing_shard_costs_the_steps_since_the_checkpoint_before(tmp_path: Path) -> None:
    """A sharded stage's files lie beside the checkpoint, which cites them with their sizes."""
    said: list[str] = []
    for name, step in ((PREVIOUS, 2), (LAST, 4)):
        file = tmp_path / f"shards-{step}" / "rank-0-of-1.safetensors"
        file.parent.mkdir()
        file.write_bytes(b"twelve bytes")
        files = [{"file": file.name, "bytes": 12, "sha256": ""}]
        stream({"global_step": step, "shards": {"folder": file.parent.name, "files": files}}, tmp_path / name)
    assert checkpoint_to_resume(tmp_path, said.append) == tmp_path / LAST and not said
    for damage in (lambda: file.write_bytes(b"half"), file.unlink):
        damage()
        assert checkpoint_to_resume(tmp_path, said.append) == tmp_path / PREVIOUS
    assert said[0].endswith("or lacks a shard; going on from the one before it, previous.ckpt, of step 2")
    (tmp_path / PREVIOUS).unlink()  # what reads the shards then names the missing one
    assert checkpoint_to_resume(tmp_path, said.append) == tmp_path / LAST
