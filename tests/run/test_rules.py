"""Rules between the parts of a configuration: what they refuse, in one line, before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from r1_lightning.model import lora
from r1_lightning.rollout import vllm_engine
from r1_lightning.run import train as train_module
from r1_lightning.run.rules import TRAINER_KEYS
from r1_lightning.run.train import run_stage
from tests.run.conftest import REAL_CONFIGS, Command
from tests.support.commands import SMALL_MODEL
from tests.support.hf_folders import dense_folder

REFUSED = [
    # the trainer is not in the fingerprint
    *[
        ([f"+trainer.{setting}"], f"trainer.{setting.split('=')[0]}=")
        for setting in (
            "fast_dev_run=true",
            "limit_train_batches=1",
            "max_time='00:00:01:00'",
            "accumulate_grad_batches=2",
            "precision=bf16-mixed",
            "gradient_clip_val=0.1",
            "max_steps=3",
        )
    ],
    (["trainer.devices=2"], "trainer.devices=2 is not allowed: it must be 1: a stage runs in one process"),
    (["trainer.devices=-1"], "trainer.devices=-1 is not allowed"),
    (["trainer.devices=auto"], "trainer.devices='auto' is not allowed"),
    (["+trainer.num_nodes=2"], "trainer.num_nodes=2 is not allowed: it must be 1"),
    (["+trainer.strategy=ddp"], "trainer.strategy='ddp' is not allowed: it must be auto"),
    # keys that nobody reads
    (["+rolout.group_size=4"], "did you mean rollout?"),
    (["+anything=1"], "anything=1 is not allowed: the configuration takes model, task, data, rollout,"),
    # a second place for what has one
    (["+model.vocab_size=300"], "model.vocab_size=300 is not allowed: it comes from task.tokenizer.vocab_size"),
    (["+stage.sampling_temperature=0.5"], "it comes from rollout.sampling_temperature; set it there"),
    (["stage=pretrain", "+data.seed=3"], "data.seed=3 is not allowed: it comes from seed; set it there"),
    (["stage=pretrain", "+data.max_steps=3"], "data.max_steps=3 is not allowed: it comes from stage.max_steps"),
    (["+task.source.content_version=x"], "task.source.content_version='x' is not allowed: ArithmeticTask takes"),
    # data that the stage cannot train on
    (["data=text"], "GRPOModule trains on GRPOBatch, which comes from r1_lightning.data.rollout_data.GroupedRollouts"),
    (["stage=pretrain", "data=grouped_rollouts"], "is not allowed: data GroupedRolloutsDataModule needs it"),
    (
        ["stage=pretrain", "data=grouped_rollouts", "rollout=default", "reward=r1_zero"],
        "PretrainModule trains on TokenBatch, which comes from r1_lightning.data.pretrain_data.PretrainDataModule",
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
        "DistillModule trains on DistillBatch, which comes from r1_lightning.data.teacher_d",
    ),
    (["stage=distill", "stage.objective.alpha=2.0"], "stage.objective.alpha=2.0 is not allowed: it must be a number"),
    (
        ["objective=js", "stage=distill", "stage.objective.divergence.beta=0.0"],
        "stage.objective.divergence.beta=0.0 is not",
    ),
    (["stage=distill", "data.row_tokens=513"], "data.row_tokens=513 is not allowed: it must be at most model.max_pos"),
    (["stage=distill", "data=teacher_cache", "data.top_k=0"], "data.top_k=0 is not allowed"),
    # steps that an objective has no use for
    (
        ["objective=gspo", "+reward.steps={_target_: r1_lightning.rewards.steps.EquationSteps}"],
        "stage.objective._target_='r1_lightning.functional.sequence_policy_loss.GSPO' is not allowed: with reward.steps",
    ),
    # what vLLM's adapter cannot do
    (["rollout=vllm", "stage.router=replay"], "stage.router='replay' is not allowed: with rollout.sampler there is no"),
    (
        ["rollout=vllm", "rollout.sampler.dtype=fp8"],
        "rollout.sampler.dtype='fp8' is not allowed: it must be one of bfl",
    ),
    (["rollout=vllm", "rollout.sampler=null"], "rollout.sampler=None is not allowed: it must be SamplerMaker"),
    (["rollout=vllm", "+rollout.sampler.n=2"], "rollout.sampler.n=2 is not allowed: VLLM takes dtype, gpu_memory_"),
    # drafts need what drafts
    (
        ["rollout=mtp_drafts", "model.mtp_depth=0"],
        "model.mtp_depth=0 is not allowed: rollout=mtp_drafts needs an MTP module",
    ),
    (["rollout=mtp_drafts", "+rollout.sampler.n=2"], "rollout.sampler.n=2 is not allowed: MTPDrafts takes"),
    # adapters
    (["model=hf_lora"], "stage.reference_refresh_steps=40 is not allowed: with model.lora the reference is the base"),
    (
        ["model=hf_lora", "stage.reference_refresh_steps=0", "model.lora.dropout=0.1"],
        "model.lora.dropout=0.1 is not allowed: it must be 0 with rollouts",
    ),
    (["model=hf_lora", "model.lora.rank=0"], "model.lora.rank=0 is not allowed: it must be a whole number"),
    (["model=hf_lora", "model.lora.rank=x"], "model.lora.rank='x' is not allowed: it must be a whole number"),
    (["model=hf_lora", "model.lora.target_modules=q_proj"], "model.lora.target_modules='q_proj' is not allowed"),
    (["model=hf_lora", "+model.lora.rnk=3"], "model.lora.rnk=3 is not allowed: LoraSettings takes rank, alpha,"),
    (["model=hf", "model.lora={rank: 2}"], "model.lora={'rank': 2} is not allowed: it must be null, or name _target_"),
    (["model=hf", "model.lora=16"], "model.lora=16 is not allowed: it must be LoraSettings or null"),
    # lengths and numbers of problems
    (["rollout.row_tokens=513"], "rollout.row_tokens=513 is not allowed: it must be at most model.max_positions=512"),
    (["stage=pretrain", "data.row_tokens=600"], "data.row_tokens=600 is not allowed: it must be at most model.max_pos"),
    (["stage.evaluation.problems=200000"], "stage.evaluation.problems=200000 is not allowed: at most 10000"),
    (["stage=pretrain", "stage.evaluation={problems: 0}"], "stage.evaluation.problems=0 is not allowed"),
    (["stage=pretrain", "stage.evaluation={problms: 8}"], "stage.evaluation.problms=8 is not allowed"),
]


@pytest.mark.parametrize(("arguments", "expected"), REFUSED, ids=[" ".join(arguments) for arguments, _ in REFUSED])
def test_is_refused_before_anything_runs(command: Command, tmp_path: Path, arguments: list[str], expected: str) -> None:
    assert expected in command(*arguments, configs=REAL_CONFIGS).error
    assert list(tmp_path.iterdir()) == []


def test_missing_vllm_is_noticed_before_the_base_is_trained(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_engine, "find_spec", lambda name: None)
    error = command("stage=grpo", "rollout=vllm", configs=REAL_CONFIGS).error
    assert error == "rollout=vllm is not allowed: vLLM is not installed here; pip install -e '.[vllm]'"
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(vllm_engine, "find_spec", lambda name: "found")
    assert command("stage=grpo", "rollout=vllm", configs=REAL_CONFIGS).code == 0


def test_missing_peft_is_noticed_before_anything_is_made(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = dense_folder(tmp_path / "source", "qwen2")
    capsys.readouterr()  # the library's progress bars
    monkeypatch.setattr(lora, "find_spec", lambda name: None)
    arguments = ("stage=grpo", "model=hf_lora", f"init_from={source}", "stage.reference_refresh_steps=0")
    error = command(*arguments, configs=REAL_CONFIGS).error
    assert error == "model.lora is not allowed: peft is not installed here; pip install -e '.[lora]'"
    assert [entry.name for entry in tmp_path.iterdir()] == ["source"]


def test_an_experiment_s_unknown_key_is_refused(command: Command, tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\nrolout: {group_size: 4}\n")
    error = command("experiment=mine", f"hydra.searchpath=[{tmp_path}]", configs=REAL_CONFIGS).error
    assert "rolout={'group_size': 4} is not allowed" in error and "did you mean rollout?" in error


def test_drafts_leave_a_record_of_the_experts(command: Command) -> None:
    assert command("stage=grpo", "rollout=mtp_drafts", "stage.router=replay", configs=REAL_CONFIGS).code == 0


def test_what_leaves_the_weights_alone_is_allowed(command: Command) -> None:
    allowed = ["+trainer.enable_progress_bar=false", "+trainer.benchmark=false", "+trainer.num_nodes=1"]
    assert {"accelerator", "profiler", "threads"} <= set(TRAINER_KEYS)
    assert command("stage=pretrain", *allowed, configs=REAL_CONFIGS).code == 0


def test_an_evaluation_too_long_for_the_model_is_refused_before_training(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_module, "_fit", lambda *_: pytest.fail("it trained first"))
    evaluation = "stage.evaluation={problems: 2, max_new_tokens: 512}"
    small = [override for override in SMALL_MODEL if "self_check" not in override]
    refused = command("stage=pretrain", evaluation, *small, recorder=run_stage, configs=REAL_CONFIGS)
    assert refused.code == 2
    assert "error: stage.evaluation.max_new_tokens=512 is not allowed: the longest held-out prompt has" in refused.err
    assert list((tmp_path / "runs").iterdir()) == [], "a stage that never began leaves no folder"
