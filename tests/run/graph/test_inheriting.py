"""What a stage takes from its input unasked: an artefact's task, reward and lengths, and settings that fit a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from r1_lightning.artefacts.hf_folder import import_model
from r1_lightning.artefacts.store import CONFIG, Artefact
from r1_lightning.run.checks.validate import validate
from r1_lightning.run.config.compose import compose_stage, composing
from r1_lightning.run.config.stage_config import StageConfig, resolved
from r1_lightning.run.graph import inheriting
from r1_lightning.run.graph.fingerprints import stage_fingerprint
from r1_lightning.run.graph.inheriting import with_settings_of
from r1_lightning.run.graph.plan import plan
from r1_lightning.types.errors import InvalidInput
from tests.support.hf_folders import dense_folder


@pytest.fixture(autouse=True)
def hydra() -> Iterator[None]:
    with composing():
        yield


def made(folder: Path, *overrides: str) -> Artefact:
    """An artefact of which there is the configuration alone."""
    folder.mkdir(parents=True, exist_ok=True)
    config = resolved(compose_stage(overrides).config)
    (folder / CONFIG).write_text(OmegaConf.to_yaml(config))
    return Artefact(folder, config.stage["_target_"], "f" * 64)


def sample(*overrides: str) -> StageConfig:
    return compose_stage(["stage=sample", *overrides])


TRAINED = ("stage=grpo", "task=equations", "reward=math", "rollout.row_tokens=200", "rollout.max_new_tokens=90")


def found(stage: StageConfig) -> tuple[str, str, int, int]:
    config = stage.config
    names = (config.task.source["_target_"], config.reward.rewards.accuracy["_target_"])
    task, accuracy = (name.rpartition(".")[2] for name in names)
    return task, accuracy, config.rollout.row_tokens, config.rollout.max_new_tokens


def test_sampling_knows_what_its_artefact_was_trained_on(tmp_path: Path) -> None:
    base = made(tmp_path / "grpo-tiny-equations-0123456789ab", *TRAINED)
    stage = with_settings_of(sample(), base)
    validate(stage.config)
    assert found(stage) == ("EquationsTask", "MathReward", 200, 90)
    assert stage.choices["task"] == "equations"  # the data set's folder is named by it
    (note,) = stage.notes
    assert note == (
        f"sample: not typed, so taken from {base.folder}: task, reward, rollout.row_tokens=200, "
        "rollout.max_new_tokens=90"
    )


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("task=comparison", ("ComparisonTask", "MathReward", 200, 90)),
        ("task.template=r1_zero", ("ArithmeticTask", "MathReward", 200, 90)),
        ("task.source.min_operations=3", ("ArithmeticTask", "MathReward", 200, 90)),
        ("reward=r1_zero", ("EquationsTask", "AccuracyReward", 200, 90)),
        ("rollout=default", ("EquationsTask", "MathReward", 128, 64)),
        ("rollout.row_tokens=210", ("EquationsTask", "MathReward", 210, 90)),
        ("rollout.max_new_tokens=64", ("EquationsTask", "MathReward", 200, 64)),
        ("seed=3", ("EquationsTask", "MathReward", 200, 90)),
    ],
)
def test_what_is_typed_stays(tmp_path: Path, typed: str, expected: tuple[str, str, int, int]) -> None:
    assert found(with_settings_of(sample(typed), made(tmp_path, *TRAINED))) == expected


@pytest.mark.parametrize("chosen", ["experiment=r1_cold_start_tiny", "debug=fast"])
def test_where_more_was_chosen_nothing_is_taken(tmp_path: Path, chosen: str) -> None:
    stage = sample(chosen)
    assert with_settings_of(stage, made(tmp_path, *TRAINED)) is stage


def test_the_same_settings_are_the_same_data_set(tmp_path: Path) -> None:
    """What was trained by the defaults is sampled by them, under the fingerprint that it had."""
    stage = sample()
    same = with_settings_of(stage, made(tmp_path, "stage=grpo"))
    assert same.notes == () and stage_fingerprint(same, {}) == stage_fingerprint(stage, {})


@pytest.mark.parametrize(
    ("trained", "rows", "new"),
    [
        (("stage=sft", "data.row_tokens=192", "data.examples.file=x"), 192, 64),
        (("stage=pretrain",), None, 64),
        (("stage=sft", "stage.evaluation.max_new_tokens=100", "data.examples.file=x"), 256, 100),
    ],
)
def test_lengths_of_what_drew_no_completions(
    tmp_path: Path, trained: tuple[str, ...], rows: int | None, new: int
) -> None:
    base = made(tmp_path, *trained)
    expected = rows or OmegaConf.load(tmp_path / CONFIG).data.row_tokens
    assert found(with_settings_of(sample(), base))[2:] == (expected, new)


def test_rewards_that_need_a_model_are_left_out(tmp_path: Path) -> None:
    base = made(tmp_path, "stage=grpo", "reward=r1_stage_2", "task=r1_stage_2", "paths.data=/data")
    stage = with_settings_of(sample(), base)
    reward = OmegaConf.to_container(stage.config.reward)
    assert "ModelScore" not in str(reward) and "accuracy" in reward["rewards"]
    assert set(reward["weights"]) <= set(reward["rewards"]) >= set(reward["from_step"])


@pytest.mark.parametrize("group", ["task.source", "reward.rewards.accuracy"])
def test_code_of_others_is_not_taken(tmp_path: Path, group: str) -> None:
    base = made(tmp_path, *TRAINED)
    config = OmegaConf.load(tmp_path / CONFIG)
    OmegaConf.update(config, f"{group}._target_", "os.system")
    (tmp_path / CONFIG).write_text(OmegaConf.to_yaml(config))
    with pytest.raises(InvalidInput, match=r"_target_='os\.system' is not allowed: it is no class of r1_lightning"):
        with_settings_of(sample(), base)


# ------------------------------------------------------------------------------------------------------------ checkpoints


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dense_folder(tmp_path_factory.mktemp("qwen"), "qwen2", max_position_embeddings=4096)


def settings(stage: StageConfig) -> dict[str, Any]:
    paths = ("optim.lr", "rollout.group_size", "rollout.max_new_tokens", "rollout.row_tokens")
    return {path: OmegaConf.select(stage.config, path) for path in (*paths, "stage.reference_refresh_steps")}


FIT = dict(zip(settings(StageConfig("", {}, OmegaConf.create(), "")), (1e-6, 8, 1024, 1536, 400), strict=True))


@pytest.mark.parametrize(
    ("typed", "changes"),
    [
        (("task=equations",), {}),
        (("task=equations", "optim.lr=2e-6"), {"optim.lr": 2e-6}),
        (("task=equations", "rollout.group_size=16"), {"rollout.group_size": 16}),
        (("task=equations", "stage.reference_refresh_steps=0"), {"stage.reference_refresh_steps": 0}),
        (("task=equations", "optim=adamw"), {"optim.lr": 1e-4}),  # a group that was typed stays whole
        (("task=equations", "model=hf"), {}),
    ],
)
def test_rl_of_a_checkpoint_has_settings_that_fit(qwen: Path, typed: tuple[str, ...], changes: dict[str, Any]) -> None:
    node = plan(compose_stage(["stage=grpo", f"init_from={qwen}", *typed]))
    assert settings(node.stage) == FIT | changes
    (note,) = node.stage.notes
    head, _, taken = note.partition(": optim" if "optim.lr" not in changes else ": rollout")
    assert head == "grpo: not typed, so taken from the settings for a checkpoint"
    assert not any(key in taken for key in ("task", "reward", *changes))  # what was typed is not said to be missing
    assert ("optim.lr=1e-06" in note) == ("optim.lr" not in changes)
    assert "reward" not in note and node.stage.choices["model"] == "hf"


def test_ppo_of_a_checkpoint_has_grpos_settings_and_a_slower_value_model(qwen: Path) -> None:
    node = plan(compose_stage(["stage=ppo", f"init_from={qwen}", "task=equations"]))
    assert settings(node.stage) == FIT and node.stage.config.stage.value_lr == 1e-5


def test_the_miniatures_task_is_named(qwen: Path) -> None:
    node = plan(compose_stage(["stage=grpo", f"init_from={qwen}"]))
    assert node.stage.notes[-1] == "grpo: task=arithmetic is the miniature's: task=NAME asks for another"


def test_a_checkpoint_that_is_too_short_for_them_says_so(tmp_path: Path) -> None:
    short = dense_folder(tmp_path / "short", "qwen2")  # 256 positions
    with pytest.raises(InvalidInput, match=r"rollout\.row_tokens=1536 is not allowed: .*256"):
        plan(compose_stage(["stage=grpo", f"init_from={short}"]))


def test_rows_longer_than_the_miniature_takes_are_no_obstacle(qwen: Path, tmp_path: Path) -> None:
    """model=tiny, which nobody asked for, takes 256 tokens."""
    file = tmp_path / "rows.jsonl"
    file.write_text('{"question": "1+1", "completion": "2"}\n')
    node = plan(compose_stage(["stage=sft", f"init_from={qwen}", "data.row_tokens=2048", f"data.examples.file={file}"]))
    assert node.stage.config.model.hf_config.max_position_embeddings == 4096


def test_a_file_named_after_the_stage_says_what_a_checkpoint_needs(
    qwen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a new stage has such settings by a file of its own."""
    (tmp_path / "sft_of_a_checkpoint.yaml").write_text("optim: {lr: 3.0e-6}\n")
    monkeypatch.setattr(inheriting, "config_folder", lambda: tmp_path)
    base = import_model(qwen)
    assert with_settings_of(compose_stage(["stage=sft"]), base).config.optim.lr == 3e-6
    assert with_settings_of(compose_stage(["stage=sft", "optim.lr=0.5"]), base).config.optim.lr == 0.5
    grpo = compose_stage(["stage=grpo"])
    assert with_settings_of(grpo, base) is grpo


def test_other_stages_and_our_own_models_keep_theirs(qwen: Path, tmp_path: Path) -> None:
    stage = compose_stage(["stage=sft", "data.examples.file=x"])
    assert with_settings_of(stage, import_model(qwen)) is stage
    ours = compose_stage(["stage=grpo"])
    assert with_settings_of(ours, made(tmp_path, "stage=pretrain")) is ours
    debug = compose_stage(["stage=grpo", "debug=fast"])
    assert with_settings_of(debug, import_model(qwen)) is debug


def test_dpo_of_a_checkpoint_takes_its_papers_learning_rate(qwen: Path) -> None:
    node = plan(compose_stage(["stage=dpo", f"init_from={qwen}"]))
    assert node.stage.config.optim.lr == 1e-6 and "optim.lr=1e-06" in node.stage.notes[0]
    assert plan(compose_stage(["stage=dpo", f"init_from={qwen}", "optim.lr=2e-6"])).stage.config.optim.lr == 2e-6
