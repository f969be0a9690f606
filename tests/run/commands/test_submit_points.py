"""The runs of a command line are those of `r1 train`, with a device decided for the cluster and a root that every node can name."""

from __future__ import annotations

from pathlib import Path

import pytest

from r1_lightning.run.commands.submit_points import is_dry, points_of
from r1_lightning.types.errors import InvalidInput


def test_a_run_s_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`launcher` and `dry_run` are for the submission; what is typed for the run stays as it is."""
    monkeypatch.chdir(tmp_path)
    words = ["stage=pretrain", "launcher.partition=gpu", "launcher=slurm", "name=first", "dry_run=true", "seed=3"]
    (point,) = points_of(words)
    root = tmp_path / "runs"
    assert point.words == ("stage=pretrain", "name=first", "seed=3", "trainer.accelerator=cpu", f"paths.root={root}")
    assert point.launcher.partition == "gpu" and point.root == root and point.node.stage.stage == "pretrain"
    assert is_dry(words) and not is_dry(["dry_run=false"]) and not root.exists()


def test_where_a_gpu_is_asked_for_the_run_is_that_of_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """BF16 is the default there and part of the fingerprint, whatever the machine is that submits."""
    monkeypatch.chdir(tmp_path)
    (here,) = points_of(["stage=pretrain"])
    (there,) = points_of(["stage=pretrain", "launcher.gpus_per_node=1"])
    assert "trainer.accelerator=gpu" in there.words and there.node.stage.config.precision.compute == "bf16"
    assert here.node.fingerprint != there.node.fingerprint


def test_a_sweep_is_one_run_for_each_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    points = points_of(["-m", "stage=pretrain", "seed=0,1"])
    assert [point.words[:2] for point in points] == [("stage=pretrain", "seed=0"), ("stage=pretrain", "seed=1")]
    assert points[0].node.fingerprint != points[1].node.fingerprint


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("launcher=local", "^launcher='local' is not allowed: it must be slurm"),
        ("fresh=true", "^fresh=True is not allowed"),
        ("only=grpo-0123456789", "^only="),
        ("--cfg", "^submit='--cfg' is not allowed"),
        ("launcher.node=2", "launcher.node"),
        ("launcher.nodes=two", "^launcher.nodes='two' is not allowed"),
    ],
)
def test_what_is_refused(word: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInput, match=line):
        points_of(["stage=pretrain", word])
