"""What counts in a fingerprint, and what does not."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from r1_lightning.artefacts import store
from r1_lightning.run.config.compose import compose_stage, composing
from r1_lightning.run.graph.fingerprints import stage_fingerprint
from tests.run import fakes
from tests.run.conftest import Command, Outcome


def _folder(outcome: Outcome, stage: str) -> Path:
    return next(folder for name, folder, *_ in outcome.recorder.calls if name == stage)


SAME = [
    "paths.root=elsewhere",
    "paths.data=/data",
    "+callbacks.x=1",
    "+logger.x={_target_: tests.run.fakes.FakeReward, name: x}",
    "+launcher.x=1",
]


OTHER = [
    "seed=1",
    "model.d_model=9",
    "task.source.folder=x",
    "data.row_tokens=8",
    "rollout.group_size=8",
    "optim.lr=0.1",
    "precision.dtype=bf16",
    "stage.max_steps=6",
    "+reward.weight=2",
]


def _fingerprint(outcome: Outcome) -> str:
    assert outcome.code == 0, outcome.err
    return store.open_artefact(_folder(outcome, "pretrain")).fingerprint


@pytest.mark.parametrize("override", SAME)
def test_devices_and_places_do_not_count(command: Command, override: str) -> None:
    a = _fingerprint(command("stage=pretrain"))
    assert _fingerprint(command("stage=pretrain", override, "fresh=true")) == a


@pytest.mark.parametrize("override", OTHER)
def test_what_changes_the_result_counts(command: Command, override: str) -> None:
    a = _fingerprint(command("stage=pretrain"))
    assert _fingerprint(command("stage=pretrain", override)) != a


@pytest.mark.parametrize("target", ["FakeTask", "FakeModule"])
def test_content_versions_count(command: Command, monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    a = _fingerprint(command("stage=pretrain"))
    monkeypatch.setattr(getattr(fakes, target), "content_version", "2")
    b = _fingerprint(command("stage=pretrain"))
    monkeypatch.setattr(getattr(fakes, target), "content_version", property(lambda self: "3"))
    if target == "FakeModule":  # a stage cannot be made before it runs: its version is a constant
        return
    assert len({a, b, _fingerprint(command("stage=pretrain"))}) == 3


def test_inputs_count(command: Command) -> None:
    plain = command("stage=grpo")
    other = command("stage=grpo", 'stage.parent_overrides=["stage.max_steps=6"]')
    assert other.recorder.stages == ["pretrain", "grpo"]
    assert OmegaConf.load(_folder(other, "pretrain") / store.CONFIG).stage.max_steps == 6
    assert (
        store.open_artefact(_folder(plain, "grpo")).fingerprint
        != store.open_artefact(_folder(other, "grpo")).fingerprint
    )


def test_the_version_of_a_property_is_asked_of_what_the_node_makes(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A data source outside of the task, whose version depends on its files."""
    digests = []
    for version in ("1", "2"):
        monkeypatch.setattr(fakes.FakeReward, "content_version", property(lambda self, v=version: v), raising=False)
        digests.append(_fingerprint(command("stage=pretrain")))
    assert digests[0] != digests[1]


def test_the_judge_of_a_task_is_not_in_the_fingerprint() -> None:
    """It refuses rewards and judges measures; what is learned is the same."""
    with composing():
        digests = {
            stage_fingerprint(compose_stage(["stage=grpo", *more]), {})
            for more in ([], ["task.judge=math"], ["~task.judge"])
        }
        other = stage_fingerprint(compose_stage(["stage=grpo", "task.template=r1"]), {})
    assert len(digests) == 1 and other not in digests
