"""The runs of a command line are those of `r1 train`, with a device decided for the cluster and a root that every node can name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from r1_lightning.run.commands.submit_points import _processes_per_node, is_dry, points_of
from r1_lightning.run.graph.node import Node
from r1_lightning.types.errors import InvalidInput
from tests.run.config.test_slurm import settings


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
        ("only=grpo-0123456789", "^only="),
        ("--cfg", "^submit='--cfg' is not allowed"),
        ("--config-dir=nowhere", "^--config-dir='nowhere' is not allowed: it must be a folder that is there"),
        ("-cd", "^--config-dir='' is not allowed"),
        ("launcher.node=2", "launcher.node"),
        ("launcher.nodes=two", "^launcher.nodes='two' is not allowed"),
    ],
)
def test_what_is_refused(word: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInput, match=line):
        points_of(["stage=pretrain", word])


def test_options_of_one_s_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A base with an option of one's own is planned with it, too: Hydra's search path is that of the whole graph."""
    monkeypatch.chdir(tmp_path)
    for group, text in (("optim", "defaults: [adamw]\nbeta1: 0.5\n"), ("model", "defaults: [tiny]\nn_layers: 3\n")):
        (tmp_path / "own" / group).mkdir(parents=True)
        (tmp_path / "own" / group / "mine.yaml").write_text(text)
    words = ["stage=grpo", "optim=mine", "model=mine"]
    for flag in (["--config-dir", "own"], ["--config-dir=own"], ["-cd", f"{tmp_path}/own"]):
        (point,) = points_of([*words[:1], *flag, *words[1:]])
        assert point.configs == tmp_path / "own" and point.words[:3] == tuple(words)
        assert point.node.stage.config.optim.beta1 == 0.5
        base = point.node.inputs["base"]
        assert isinstance(base, Node) and base.stage.config.model.n_layers == 3
    with pytest.raises(InvalidInput, match="--config-dir='own own' is not allowed: it must be one folder"):
        points_of(["-cd", "own", "--config-dir=own", *words])
    with pytest.raises(InvalidInput, match="optim"):
        points_of(words)


def test_a_run_that_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (point,) = points_of(["stage=pretrain", "fresh=true"])
    assert point.fresh and "fresh=true" in point.words and not points_of(["stage=pretrain"])[0].fresh
    with pytest.raises(InvalidInput, match=r"^fresh=True is not allowed: with stage\.shards above 1"):
        points_of(["stage=sample", "stage.shards=2", "fresh=true"])


@pytest.mark.parametrize(
    ("trainer", "launcher", "expected"),
    [
        ({"devices": 1}, {}, 1),
        ({"devices": 1}, {"gpus_per_node": 8}, 1),  # a teacher may stand on another GPU of the one process
        ({"devices": 1, "strategy": "ddp"}, {"gpus_per_node": 8, "nodes": 2}, 8),
        ({"devices": 2}, {}, 2),
        ({"devices": 2, "num_nodes": 2}, {"gpus_per_node": 8, "nodes": 2}, 2),
        ({"devices": 1, "strategy": "ddp"}, {}, 1),
    ],
)
def test_processes_per_node(trainer: dict[str, Any], launcher: dict[str, Any], expected: int) -> None:
    assert _processes_per_node(trainer, settings(**launcher)) == expected


@pytest.mark.parametrize(
    ("trainer", "launcher", "line"),
    [
        ({"devices": 1}, {"nodes": 2}, r"^launcher\.nodes=2 is not allowed: one process works on one node"),
        ({"devices": 2, "num_nodes": 3}, {"nodes": 2}, r"^trainer\.num_nodes=3 is not allowed"),
    ],
)
def test_nodes_without_processes_are_refused(trainer: dict[str, Any], launcher: dict[str, Any], line: str) -> None:
    with pytest.raises(InvalidInput, match=line):
        _processes_per_node(trainer, settings(**launcher))
