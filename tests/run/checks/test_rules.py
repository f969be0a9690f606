"""Rules between the parts of a configuration: what they refuse, in one line, before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from r1_lightning.run.checks.rules import TRAINER_KEYS, check_rules, data_options
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.tensors import ChatBatch, DistillBatch, GRPOBatch, PreferenceBatch, TokenBatch
from tests.run.conftest import REAL_CONFIGS, Command

REFUSED = [
    # the trainer is not in the fingerprint
    *[
        ([f"+trainer.{setting}"], f"trainer.{setting.split('=')[0]}=")
        for setting in (
            "fast_dev_run=true",
            "limit_train_batches=1",
            "accumulate_grad_batches=2",
            "precision=bf16-mixed",
            "gradient_clip_val=0.1",
            "max_steps=3",
        )
    ],
    (["trainer.devices=0"], "trainer.devices=0 is not allowed: it must be a whole number of at least 1"),
    (["trainer.devices=-1"], "trainer.devices=-1 is not allowed"),
    (["trainer.devices=auto"], "trainer.devices='auto' is not allowed"),
    (["+trainer.num_nodes=0"], "trainer.num_nodes=0 is not allowed: it must be a whole number of at least 1"),
    (["+trainer.strategy=ddp_spawn"], "trainer.strategy='ddp_spawn' is not allowed: it must be one of auto, ddp"),
    (
        ["trainer.role_devices={teacher: tpu}"],
        "trainer.role_devices.teacher='tpu' is not allowed: it must be cpu, cuda or cuda:NUMBER",
    ),
    # keys that nobody reads
    (["+rolout.group_size=4"], "did you mean rollout?"),
    (["+anything=1"], "anything=1 is not allowed: the configuration takes model, task, data, rollout,"),
    # a second place for what has one
    (["+model.vocab_size=300"], "model.vocab_size=300 is not allowed: it comes from task.tokenizer.vocab_size"),
    (["+stage.sampling_temperature=0.5"], "it comes from rollout.sampling_temperature; set it there"),
    (["stage=pretrain", "+data.seed=3"], "data.seed=3 is not allowed: it comes from seed; set it there"),
    (["stage=pretrain", "+data.max_steps=3"], "data.max_steps=3 is not allowed: it comes from stage.max_steps"),
    (["+task.source.content_version=x"], "task.source.content_version='x' is not allowed: ArithmeticTask takes"),
    (
        ["stage=sft", "+data.data_folder=x"],
        "data.data_folder='x' is not allowed: it comes from stage.inputs.data; set it",
    ),
    # data that the stage cannot train on
    (
        ["stage=sft", "data=text"],
        "data._target_='r1_lightning.data.pretrain_data.PretrainDataModule' is not allowed: "
        "SFTModule trains on ChatBatch, and PretrainDataModule makes TokenBatch; take data=chat",
    ),
    (
        ["data=text"],
        "GRPOModule trains on GRPOBatch, and PretrainDataModule makes TokenBatch; take data=grouped_rollouts",
    ),
    (["stage=pretrain", "data=grouped_rollouts"], "is not allowed: data GroupedRolloutsDataModule needs it"),
    (
        ["stage=pretrain", "data=grouped_rollouts", "rollout=default", "reward=r1_zero"],
        "PretrainModule trains on TokenBatch, and GroupedRolloutsDataModule makes GRPOBatch; take data=text",
    ),
    (["~reward"], "reward=None is not allowed: data GroupedRolloutsDataModule needs it"),
    # a student without its teacher, its sampler or its data
    (
        ["stage=distill", "~stage.inputs.teacher"],
        "stage.inputs.teacher=None is not allowed: stage DistillModule needs it",
    ),
    (["stage=distill", "data=on_policy"], "rollout=None is not allowed: data OnPolicyDataModule needs it"),
    (
        ["stage=distill", "data=text"],
        "DistillModule trains on DistillBatch, and PretrainDataModule makes TokenBatch; "
        "take data=on_policy or data=teacher_cache or data=teacher_traces",
    ),
    (["stage=distill", "stage.objective.alpha=2.0"], "stage.objective.alpha=2.0 is not allowed: it must be a number"),
    (
        ["objective=js", "stage=distill", "stage.objective.divergence.beta=0.0"],
        "stage.objective.divergence.beta=0.0 is not",
    ),
    (["stage=distill", "data=teacher_cache", "data.top_k=0"], "data.top_k=0 is not allowed"),
    (
        ["stage=distill", "data=on_policy", "rollout=default", "stage.objective.alpha=0.0"],
        "stage.objective.alpha=0.0 is not allowed: on the student's own text it must be above 0",
    ),
    (
        [
            "stage=distill",
            "data=on_policy",
            "rollout=default",
            "stage.objective.alpha=0.0",
            "data.on_policy_fraction=0.1",
        ],
        "stage.objective.alpha=0.0 is not allowed: on the student's own text it must be above 0",
    ),
    (
        ["stage=distill", "data=teacher_cache", "data.distill_temperature=4"],
        "data.distill_temperature=4 is not allowed: it must be that of stage.objective.distill_temperature=2.0",
    ),
    # numbers of problems
    (["stage.evaluation.problems=200000"], "stage.evaluation.problems=200000 is not allowed: at most 10000"),
    (["stage=pretrain", "stage.evaluation={problems: 0}"], "stage.evaluation.problems=0 is not allowed"),
    (["stage=pretrain", "stage.evaluation={problms: 8}"], "stage.evaluation.problms=8 is not allowed"),
    # how long
    (
        ["stage=sft", "data.epochs=null"],
        "stage.max_steps=None is not allowed: it must be a whole number, or set data.epochs",
    ),
    (["stage.max_steps=null"], "stage.max_steps=None is not allowed: it must be a whole number"),
    (["stage=sft", "stage.max_steps=0"], "stage.max_steps=0 is not allowed"),
    (["stage=sft", "data.epochs=two"], "data.epochs='two' is not allowed: it must be a whole number or null"),
]


@pytest.mark.parametrize(("arguments", "expected"), REFUSED, ids=[" ".join(arguments) for arguments, _ in REFUSED])
def test_is_refused_before_anything_runs(command: Command, tmp_path: Path, arguments: list[str], expected: str) -> None:
    assert expected in command(*arguments, configs=REAL_CONFIGS).error
    assert list(tmp_path.iterdir()) == []


def test_an_experiment_s_unknown_key_is_refused(command: Command, tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\nrolout: {group_size: 4}\n")
    error = command("experiment=mine", f"hydra.searchpath=[{tmp_path}]", configs=REAL_CONFIGS).error
    assert "rolout={'group_size': 4} is not allowed" in error and "did you mean rollout?" in error


@pytest.mark.parametrize("more", [[], ["stage.objective.distill_temperature=4.0"], ["data.distill_temperature=2"]])
def test_the_cached_teacher_and_the_objective_have_one_temperature(command: Command, more: list[str]) -> None:
    """By itself the cache takes that of the objective, whatever it is."""
    assert command("stage=distill", "data=teacher_cache", *more, configs=REAL_CONFIGS).code == 0


def test_what_leaves_the_weights_alone_is_allowed(command: Command) -> None:
    allowed = ["+trainer.enable_progress_bar=false", "+trainer.benchmark=false", "+trainer.num_nodes=1"]
    assert {"accelerator", "profiler", "threads"} <= set(TRAINER_KEYS)
    assert command("stage=pretrain", *allowed, configs=REAL_CONFIGS).code == 0


def test_a_stage_without_steps_of_its_own_is_left_alone() -> None:
    check_rules({"stage": {"_target_": "tests.run.fakes.FakeTrainer"}})
    check_rules({"stage": {"max_steps": None}, "data": {"epochs": 1}})
    with pytest.raises(InvalidInput, match=r"stage\.max_steps=None"):
        check_rules({"stage": {"max_steps": None}, "data": {"epochs": None}})


def test_every_option_of_data_says_what_its_batches_are() -> None:
    """None is left out: a data module without `batch_type` would fit every stage."""
    kinds = (TokenBatch, ChatBatch, GRPOBatch, PreferenceBatch, DistillBatch)
    found = [option for kind in kinds for option in data_options(kind)]
    assert sorted(found) == sorted(path.stem for path in (REAL_CONFIGS / "data").glob("*.yaml"))
    assert data_options(ChatBatch) == ["chat"] and data_options(TokenBatch) == ["text"]


class Paired:
    """A stage and a data module of somebody's own."""

    batch_type = PreferenceBatch


class LabelledBatch(PreferenceBatch):
    """A batch that is more than the stage asks for."""


class Labelled:
    batch_type = LabelledBatch


def test_a_batch_that_is_more_than_the_stage_asks_for_fits_and_one_that_is_less_does_not() -> None:
    paired, labelled = ({"_target_": f"{__name__}.{kind.__name__}"} for kind in (Paired, Labelled))
    check_rules({"stage": paired, "data": labelled})
    check_rules({"stage": {"_target_": "tests.run.fakes.FakeTrainer"}, "data": labelled})  # it does not say
    with pytest.raises(InvalidInput, match="Labelled trains on LabelledBatch, and Paired makes PreferenceBatch"):
        check_rules({"stage": labelled, "data": paired})


def test_a_judge_that_nobody_asks_is_refused(command: Command) -> None:
    for stage in ("reward_model", "grpo"):
        error = command(f"stage={stage}", "+stage.inputs.judge=grpo", configs=REAL_CONFIGS).error
        assert (
            error == "stage.inputs.judge='grpo' is not allowed: data=judged_preferences asks a judge, these data do not"
        )
