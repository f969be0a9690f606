"""Planning a graph: where inputs come from, each stage composed once, a bad input refused before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from r1_lightning.artefacts import store
from r1_lightning.run.config.compose import compose_stage, composing
from r1_lightning.run.config.stage_config import StageConfig
from r1_lightning.run.graph import plan as plan_module
from r1_lightning.run.graph.node import Node
from tests.run.conftest import Command, Outcome

SCORER = "+stage.inputs.score=scorer"


def _folder(outcome: Outcome, stage: str) -> Path:
    return next(folder for name, folder, *_ in outcome.recorder.calls if name == stage)


def test_init_from_is_the_same_input_as_a_built_one(command: Command) -> None:
    built = command("stage=grpo")
    base, final = _folder(built, "pretrain"), _folder(built, "grpo")
    given = command("stage=grpo", f"init_from={base}")
    assert given.recorder.stages == [] and str(final) in given.out
    given = command("stage=grpo", f"init_from={base}", "seed=5")
    assert given.recorder.stages == ["grpo"] and f"base: taking {base}" in given.out


def test_a_bad_init_from_is_one_line(command: Command, tmp_path: Path) -> None:
    base = _folder(command("stage=pretrain"), "pretrain")
    assert "FakeModel" not in command("stage=grpo", "init_from=absent").error
    (tmp_path / "empty").mkdir()
    assert (
        "init_from: artefact='empty' is not allowed: it is no artefact"
        in command("stage=grpo", "init_from=empty").error
    )
    before = sorted(entry.name for entry in (tmp_path / "runs").iterdir())
    other = command("stage=grpo", f"init_from={base}", "model.d_model=12")
    assert other.code == 2 and len(other.err.splitlines()) == 1
    assert "made by another architecture; weight is 1 x 8 in the file and 1 x 12 in this model" in other.err
    assert sorted(entry.name for entry in (tmp_path / "runs").iterdir()) == before, "a refused input leaves no folder"
    weights = base / store.WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-8])
    assert "weights.safetensors is truncated" in command("stage=grpo", f"init_from={base}").error
    assert (
        "weights.safetensors is truncated" in command("stage=pretrain").error
    )  # nor is a damaged result shown as good


def test_a_stage_may_have_several_inputs(command: Command) -> None:
    """The base is made once and serves both; what made the second input counts; a folder is the same input as a made one."""
    made = command("stage=grpo", SCORER)
    assert made.recorder.stages == ["pretrain", "scorer", "grpo"]
    base, score, final = (_folder(made, stage) for stage in ("pretrain", "scorer", "grpo"))
    record = store.open_artefact(final)
    assert {role: source["stage"] for role, source in record.inputs.items()} == {"base": "pretrain", "score": "scorer"}
    given = command("stage=grpo", f"+stage.inputs.score={{folder: {score}}}")
    assert given.recorder.stages == [] and str(final) in given.out
    other = command("stage=grpo", '+stage.inputs.score={stage: scorer, overrides: ["optim.lr=0.5"]}')
    assert other.recorder.stages == ["scorer", "grpo"] and _folder(other, "grpo") != final
    assert f"base: reusing {base}" in other.out


def test_init_from_is_the_base_of_every_input(command: Command) -> None:
    made = command("stage=grpo", SCORER)
    base = _folder(made, "pretrain")
    again = command("stage=grpo", SCORER, f"init_from={base}")
    assert again.recorder.stages == [], "the same artefacts, given or made"
    other = command("stage=grpo", SCORER, f"init_from={base}", "seed=5")
    assert other.recorder.stages == ["scorer", "grpo"]


def test_a_bad_folder_of_an_input_is_one_line(command: Command) -> None:
    error = command("stage=grpo", "+stage.inputs.score={folder: absent}").error
    assert error.startswith("stage.inputs.score.folder: artefact='absent' is not allowed: there is no such folder")


def test_a_stage_that_many_need_is_composed_and_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """R1 in miniature has 11 distinct makers below its comparison, and 37 ways from a stage to one of them."""
    composed: list[tuple[str, ...]] = []
    compose = plan_module.compose_stage

    def counted(overrides: Sequence[str], config_name: str) -> StageConfig:
        composed.append(tuple(overrides))
        return compose(overrides, config_name)

    monkeypatch.setattr(plan_module, "compose_stage", counted)
    with composing():
        node = plan_module.plan(compose_stage(["experiment=r1_tiny"]))
    assert len(composed) == len(set(composed)) <= 12
    nodes = _nodes(node)
    assert len({id(one) for one in nodes}) == len({one.fingerprint for one in nodes}) < len(nodes)


def _nodes(node: Node) -> list[Node]:
    below = [one for source in node.inputs.values() if isinstance(source, Node) for one in _nodes(source)]
    return [node, *below]
