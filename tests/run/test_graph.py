"""The stage graph: what is built, reused, resumed; what counts in a fingerprint; where inputs come from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from torch import nn

from r1_lightning.artefacts import lineage, store
from r1_lightning.run import graph
from r1_lightning.run.compose import StageConfig, compose_stage, composing
from tests.run import fakes
from tests.run.conftest import Command, Outcome
from tests.run.fakes import Recorder


def _folder(outcome: Outcome, stage: str) -> Path:
    return next(folder for name, folder, *_ in outcome.recorder.calls if name == stage)


def test_a_missing_input_is_built_first_and_everything_is_reused(command: Command) -> None:
    first = command("stage=grpo")
    assert first.code == 0 and first.recorder.stages == ["pretrain", "grpo"]
    base, final = _folder(first, "pretrain"), _folder(first, "grpo")
    assert first.out.splitlines() == [
        f"base: missing, building it first (stage pretrain) -> {base}",
        f"grpo: running -> {final}",
        "table of grpo",
        f"grpo: everything lies in {final}",
    ]
    given = first.recorder.calls[1][2]["base"]
    assert given.complete and given.folder == base and given.stage == "pretrain"
    assert OmegaConf.load(final / store.CONFIG).stage.max_steps == 7
    record = json.loads((final / store.MARKER).read_text())
    assert record["inputs"]["base"]["fingerprint"] == given.fingerprint and record["metrics"] == {"eval/pass_at_1": 0.5}

    again = command("stage=grpo")
    assert again.code == 0 and again.recorder.stages == []
    assert again.out.splitlines()[1:] == ["table of grpo", f"grpo: everything lies in {final}"]

    other = command("stage=grpo", "optim.lr=0.5")  # the base keeps its own optimiser
    assert other.recorder.stages == ["grpo"]
    assert f"base: reusing {base} (fingerprint {given.fingerprint[:10]})" in other.out
    alone = command("stage=pretrain")
    assert alone.recorder.stages == [] and "table of pretrain" in alone.out


def test_an_incomplete_stage_resumes_in_its_folder(command: Command) -> None:
    recorder = Recorder(faults=[KeyboardInterrupt()])
    command("stage=grpo", recorder=recorder)
    second = command("stage=grpo", recorder=recorder)
    base = recorder.calls[0][1]
    assert second.code == 0 and recorder.stages == ["pretrain", "pretrain", "grpo"]
    assert recorder.calls[1][1] == base and f"base: resuming {base}" in second.out


def test_fresh_makes_a_sibling_of_the_target_only(command: Command, tmp_path: Path) -> None:
    first = command("stage=grpo")
    old = _folder(first, "grpo")
    before = {path: path.read_bytes() for path in (tmp_path / "runs").rglob("*") if path.is_file()}
    second = command("stage=grpo", "fresh=true")
    new = _folder(second, "grpo")
    assert second.recorder.stages == ["grpo"] and new.name == old.name + "-2"
    assert all(path.read_bytes() == text for path, text in before.items() if path.name != store.LOCK)
    assert str(new) in command("stage=grpo").out.splitlines()[-1]  # the newest complete one is used from now on


def test_an_incomplete_sibling_does_not_hide_a_complete_one(command: Command) -> None:
    old = _folder(command("stage=pretrain"), "pretrain")
    command("stage=pretrain", "fresh=true", recorder=Recorder(faults=[KeyboardInterrupt()]))
    outcome = command("stage=pretrain")
    assert outcome.recorder.stages == [] and str(old) == outcome.out.split()[-1]


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


def test_a_stage_that_leaves_no_weights_is_not_complete(command: Command) -> None:
    def lazy(*_: object) -> dict[str, float]:
        return {}

    outcome = command("stage=pretrain", recorder=lazy)
    assert outcome.code == 2 and "the stage wrote no weights.safetensors" in outcome.err


def test_a_folder_finished_meanwhile_is_not_run_again(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process completes the artefact between our look and our lock."""
    locked = store.locked

    def finish_first(folder: Path, *more: object) -> object:
        model = nn.Linear(8, 1)
        store.save_weights(model, folder / store.WEIGHTS)
        digest = folder.name.rpartition("-")[2]
        store.complete(store.Artefact(folder, "pretrain", digest), "c", {}, {}, {"x": 1.0})
        return locked(folder, *more)

    monkeypatch.setattr(store, "locked", finish_first)
    outcome = command("stage=pretrain")
    assert outcome.code == 0 and outcome.recorder.stages == [] and "x  1" in outcome.out


def test_the_commit_is_that_of_the_code_which_began(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkout that moves on while a run lasts does not change what the run was made with."""
    now = ["first"]
    monkeypatch.setattr(lineage, "commit", lambda: now[0])

    class Moving(Recorder):
        def __call__(self, *arguments: object) -> object:
            now[0] += "+"
            return super().__call__(*arguments)

    recorder = Moving(faults=[KeyboardInterrupt()])
    assert command("stage=pretrain", recorder=recorder).code == 130
    assert command("stage=pretrain", recorder=recorder).code == 0
    record = json.loads((recorder.calls[0][1] / store.MARKER).read_text())
    assert (record["commit"], record["commits"]) == ("first+", ["first", "first+"])


def test_a_result_of_other_code_is_shown_with_a_line_that_says_so(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lineage, "commit", lambda: "a" * 40)
    assert command("stage=grpo").code == 0
    assert "made by commit" not in command("stage=grpo").out
    monkeypatch.setattr(lineage, "commit", lambda: "a" * 40 + "-dirty")
    again = command("stage=grpo")
    assert again.recorder.stages == []
    assert "made by commit aaaaaaaaaa, the code here is aaaaaaaaaa-dirty; fresh=true makes it anew" in again.out


SCORER = "+stage.inputs.score=scorer"


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


def test_the_version_of_a_property_is_asked_of_what_the_node_makes(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A data source outside of the task, whose version depends on its files."""
    digests = []
    for version in ("1", "2"):
        monkeypatch.setattr(fakes.FakeReward, "content_version", property(lambda self, v=version: v), raising=False)
        digests.append(_fingerprint(command("stage=pretrain")))
    assert digests[0] != digests[1]


def test_a_stage_that_many_need_is_composed_and_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """R1 in miniature has 11 distinct makers below its comparison, and 37 ways from a stage to one of them."""
    composed: list[tuple[str, ...]] = []
    compose = graph.compose_stage

    def counted(overrides: Sequence[str], config_name: str) -> StageConfig:
        composed.append(tuple(overrides))
        return compose(overrides, config_name)

    monkeypatch.setattr(graph, "compose_stage", counted)
    with composing():
        node = graph.plan(compose_stage(["experiment=r1_tiny"]))
    assert len(composed) == len(set(composed)) <= 12
    nodes = _nodes(node)
    assert len({id(one) for one in nodes}) == len({one.fingerprint for one in nodes}) < len(nodes)


def _nodes(node: graph.Node) -> list[graph.Node]:
    below = [one for source in node.inputs.values() if isinstance(source, graph.Node) for one in _nodes(source)]
    return [node, *below]


def test_the_judge_of_a_task_is_not_in_the_fingerprint() -> None:
    """It refuses rewards and judges measures; what is learned is the same."""
    with composing():
        digests = {
            graph.stage_fingerprint(compose_stage(["stage=grpo", *more]), {})
            for more in ([], ["task.judge=math"], ["~task.judge"])
        }
        other = graph.stage_fingerprint(compose_stage(["stage=grpo", "task.template=r1"]), {})
    assert len(digests) == 1 and other not in digests
