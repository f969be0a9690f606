"""Rules between the model and what uses it: what they refuse, in one line, before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from r1_lightning.model import lora
from r1_lightning.rollout import vllm_engine
from tests.run.conftest import REAL_CONFIGS, Command
from tests.support.hf_folders import dense_folder

REFUSED = [
    # what vLLM's adapter cannot do
    (["rollout=vllm", "stage.router=replay"], "stage.router='replay' is not allowed: with rollout.sampler there is no"),
    (
        ["rollout=vllm", "rollout.sampler.dtype=fp8"],
        "rollout.sampler.dtype='fp8' is not allowed: it must be one of bfl",
    ),
    (["rollout=vllm", "rollout.sampler=null"], "rollout.sampler=None is not allowed: it must be SamplerMaker"),
    (["rollout=vllm", "model=tiny_gqa"], "model.attention_kind='gqa' is not allowed: rollout=vllm: weights and config"),
    (
        ["rollout=vllm", "model=tiny_lightning"],
        "model.attention_kind='lightning' is not allowed: rollout=vllm: transfor",
    ),
    (["rollout=vllm", "+rollout.sampler.n=2"], "rollout.sampler.n=2 is not allowed: VLLM takes dtype, gpu_memory_"),
    # drafts need what drafts
    (
        ["rollout=mtp_drafts", "model.mtp_depth=0"],
        "model.mtp_depth=0 is not allowed: rollout=mtp_drafts needs an MTP module",
    ),
    (
        ["rollout=mtp_drafts", "model=tiny_lightning"],
        "model.attention_kind='lightning' is not allowed: rollout=mtp_drafts",
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
    # rows longer than the model reads
    (["rollout.row_tokens=513"], "rollout.row_tokens=513 is not allowed: it must be at most model.max_positions=512"),
    (["stage=pretrain", "data.row_tokens=600"], "data.row_tokens=600 is not allowed: it must be at most model.max_pos"),
    (["stage=distill", "data.row_tokens=513"], "data.row_tokens=513 is not allowed: it must be at most model.max_pos"),
    (
        ["stage=sft", "data.row_tokens=600"],
        "data.row_tokens=600 is not allowed: it must be at most model.max_positions=512",
    ),
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
    assert error == "rollout=vllm is not allowed: vLLM is not installed here; docs/guide.md#sampling-with-vllm says how"
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
    short = ("rollout.row_tokens=64", "rollout.max_new_tokens=8")  # the folder's model has 256 positions
    error = command(*arguments, *short, configs=REAL_CONFIGS).error
    assert error == "model.lora is not allowed: peft is not installed here; pip install -e '.[lora]'"
    assert [entry.name for entry in tmp_path.iterdir()] == ["source"]


def test_drafts_leave_a_record_of_the_experts(command: Command) -> None:
    assert command("stage=grpo", "rollout=mtp_drafts", "stage.router=replay", configs=REAL_CONFIGS).code == 0
