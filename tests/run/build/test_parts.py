"""Parts are given by name to whoever asks for them, and there is one policy object for stage and sampler."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hydra
import pytest
import torch
from omegaconf import DictConfig, OmegaConf, open_dict

from r1_lightning.artefacts.store import TOKENIZER, WEIGHTS, Artefact
from r1_lightning.artefacts.weights import save_weights
from r1_lightning.rewards.accuracy import AccuracyReward
from r1_lightning.rewards.combine import WeightedSum
from r1_lightning.rewards.format import FormatReward
from r1_lightning.rewards.math_reward import MathReward
from r1_lightning.rollout import vllm_engine
from r1_lightning.rollout.groups import SHARED_FROM_TOKENS
from r1_lightning.rollout.mtp_drafts import DraftingSampler
from r1_lightning.rollout.vllm_sampler import VLLMSampler
from r1_lightning.run.build.parts import accuracy_of, build_parts, trainer_settings
from r1_lightning.run.config.compose import composing
from r1_lightning.run.config.inject import inject
from r1_lightning.stages.grpo import GRPOModule
from r1_lightning.text.chat_template import R1, R1_ZERO_PREAMBLE
from r1_lightning.types.errors import InvalidInput, require_int
from tests.support.commands import overrides
from tests.support.miniature import fingerprint


class Wants:
    """A target that asks for two parts and takes a leaf."""

    def __init__(self, backbone: Any, seed: int, size: int = 1) -> None:
        require_int("size", size, 1)
        self.backbone, self.seed, self.size = backbone, seed, size


def broken() -> None:
    raise ZeroDivisionError("a defect")


@pytest.fixture(scope="module")
def config() -> Iterator[DictConfig]:
    with composing():
        composed = hydra.compose("train", overrides=[*overrides(Path("unused")), "rollout.top_p=0.9", "seed=3"])
    OmegaConf.resolve(composed)
    yield composed


@pytest.fixture(scope="module")
def parts(config: DictConfig) -> dict[str, Any]:
    return build_parts(config, None)


def test_one_policy_object_for_stage_and_sampler(config: DictConfig, parts: dict[str, Any]) -> None:
    module = inject(config.stage, parts)
    assert isinstance(module, GRPOModule)
    assert module.backbone is parts["backbone"] is parts["generate"].backbone
    data = inject(config.data, parts)
    assert data.dataset.maker.generate is parts["generate"]


def test_values_of_one_kind_have_one_source(config: DictConfig, parts: dict[str, Any]) -> None:
    sampler, module = parts["generate"], inject(config.stage, parts)
    assert module.sampling_temperature == sampler.config.sampling_temperature == config.rollout.sampling_temperature
    assert sampler.config.top_p == 0.9 and sampler.seed == 3
    assert module.max_steps == parts["max_steps"] == config.stage.max_steps
    assert parts["backbone"].config.vocab_size == parts["tokenizer"].vocab_size
    assert sampler.eos_id == parts["tokenizer"].eos_id


def test_another_sampler_is_made_for_the_same_policy(config: DictConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """`rollout=vllm`: nothing of vLLM is needed until the first rollout, so that an artefact can be evaluated without it."""
    other = config.copy()
    with open_dict(other):
        other.rollout.sampler = {"_target_": "r1_lightning.rollout.vllm_sampler.VLLM", "dtype": "float16"}
    parts = build_parts(other, None)
    sampler = parts["generate"]
    assert isinstance(sampler, VLLMSampler)
    assert sampler.weights.args == (parts["backbone"],) and sampler.score.args[0] is parts["backbone"]
    assert (sampler.config, sampler.seed, sampler.eos_ids) == (
        parts["rollout"].sampling,
        3,
        [parts["tokenizer"].eos_id],
    )
    assert sampler.engine.settings["dtype"] == "float16"
    assert sampler.engine.settings["max_num_seqs"] == config.rollout.max_rows
    monkeypatch.setattr(vllm_engine, "find_spec", lambda name: None)
    with pytest.raises(InvalidInput, match="vLLM is not installed here"):
        sampler([[1]], 2, torch.zeros(2, 3, dtype=torch.long))


@pytest.mark.parametrize("router", ["frozen", "replay"])
def test_a_drafting_sampler_is_made_for_the_same_policy(config: DictConfig, router: str) -> None:
    """`rollout=mtp_drafts`: it can record the experts that replay needs."""
    other = config.copy()
    with open_dict(other):
        other.rollout.sampler = {"_target_": "r1_lightning.rollout.mtp_drafts.MTPDrafts"}
        other.stage.router = router
    parts = build_parts(other, None)
    sampler = parts["generate"]
    assert isinstance(sampler, DraftingSampler) and sampler.backbone is sampler.drafter is parts["backbone"]
    assert (sampler.config, sampler.seed, sampler.eos_id) == (parts["rollout"].sampling, 3, parts["tokenizer"].eos_id)
    assert sampler.record_routes is (router == "replay") and sampler.max_rows == config.rollout.max_rows


def test_a_model_that_reads_every_copy_of_a_prompt_gets_copies(parts: dict[str, Any]) -> None:
    """Unfolding a shared row would make it longer than `rollout.row_tokens`; plain rows are packed as they always were."""
    assert parts["rollout"].share_prompts_from == SHARED_FROM_TOKENS
    words = ["model=tiny_lightning", *overrides(Path("unused")), "model.softmax_attention_every=2"]
    with composing():
        composed = hydra.compose("train", overrides=words)
    OmegaConf.resolve(composed)
    recurrent = build_parts(composed, None)
    assert not recurrent["backbone"].continues_documents
    assert recurrent["rollout"].share_prompts_from is None


def test_the_template_is_a_token_or_not(config: DictConfig, parts: dict[str, Any]) -> None:
    assert len(parts["tokenizer"].encode(R1_ZERO_PREAMBLE)) == 1
    spelled = config.copy()
    spelled.task.tokenizer.phrases_as_tokens = False
    assert len(build_parts(spelled, None)["tokenizer"].encode(R1_ZERO_PREAMBLE)) > 50


def test_a_tokenizer_for_r1_holds_the_sentences_of_both_templates(config: DictConfig) -> None:
    """The generator's documents are in R1-Zero's template, and a row of 96 tokens has no room to spell it out."""
    other = config.copy()
    other.task.template = "r1"
    other.reward = None
    tokenizer = build_parts(other, None)["tokenizer"]
    assert [len(tokenizer.encode(phrase)) for phrase in (R1_ZERO_PREAMBLE, *R1.phrases())] == [1, 1, 1]


def test_the_reward_called_accuracy_judges_evaluations() -> None:
    accuracy = AccuracyReward()
    assert accuracy_of(WeightedSum([FormatReward(), accuracy])) is accuracy
    assert accuracy_of(WeightedSum([FormatReward()])) is None
    assert accuracy_of(None) is None


def test_without_a_reward_the_task_s_judge_judges_evaluations() -> None:
    accuracy = AccuracyReward()
    assert accuracy_of(WeightedSum([accuracy]), "math") is accuracy
    found = accuracy_of(None, "math", "r1")
    assert isinstance(found, MathReward) and found.form == "r1"
    assert isinstance(accuracy_of(WeightedSum([FormatReward()]), "math"), MathReward)
    assert accuracy_of(None, "exact", "r1") is None  # the exact rule, which is asked where nothing else is


def test_the_seed_decides_the_weights(config: DictConfig, parts: dict[str, Any]) -> None:
    assert fingerprint(build_parts(config, None)["backbone"]) == fingerprint(parts["backbone"])
    other = config.copy()
    other.seed = 4
    assert fingerprint(build_parts(other, None)["backbone"]) != fingerprint(parts["backbone"])


def base_of(parts: dict[str, Any], folder: Path) -> Artefact:
    """An artefact that holds these parts' tokenizer and weights."""
    parts["tokenizer"].save(folder / TOKENIZER, parts["template"])
    save_weights(parts["backbone"], folder / WEIGHTS)
    return Artefact(folder, "pretrain", "0" * 64)


def test_a_base_gives_its_weights_and_its_tokenizer(config: DictConfig, tmp_path: Path) -> None:
    other = config.copy()
    other.seed, other.task.tokenizer.training_documents = 8, 20
    base = build_parts(other, None)
    taken = build_parts(config, base_of(base, tmp_path))
    assert fingerprint(taken["backbone"]) == fingerprint(base["backbone"])
    text = "What is 12+30? Please calculate."
    assert taken["tokenizer"].encode(text) == base["tokenizer"].encode(text)
    assert taken["tokenizer"].vocab_size == base["tokenizer"].vocab_size


def test_a_base_of_another_shape_is_refused(config: DictConfig, parts: dict[str, Any], tmp_path: Path) -> None:
    base = base_of(parts, tmp_path)
    wider = config.copy()
    wider.model.d_model = 24
    with pytest.raises(InvalidInput, match="made by another architecture"):
        build_parts(wider, base)


def test_an_unknown_template_is_named(config: DictConfig) -> None:
    wrong = config.copy()
    wrong.task.template = "r2_zero"
    with pytest.raises(
        InvalidInput, match=r"task\.template='r2_zero' is not allowed: it must be one of r1_zero, r1, plain"
    ):
        build_parts(wrong, None)


def test_an_empty_model_has_the_shapes_and_no_numbers(config: DictConfig, parts: dict[str, Any]) -> None:
    empty = build_parts(config, None, is_empty=True)
    shapes = {name: tensor.shape for name, tensor in parts["backbone"].state_dict().items()}
    assert {name: tensor.shape for name, tensor in empty["backbone"].state_dict().items()} == shapes
    assert {tensor.device.type for tensor in empty["backbone"].state_dict().values()} == {"meta"}
    assert empty["backbone"].precision.compute == config.precision.compute


def test_the_trainer_gets_what_is_its_own(config: DictConfig) -> None:
    settings = trainer_settings(config)
    assert settings["accelerator"] == "cpu" and not settings.keys() & {"threads", "checkpoint_every_steps"}


def test_blocks_are_computed_again_where_the_trainer_says_so(config: DictConfig, parts: dict[str, Any]) -> None:
    assert not parts["backbone"].recompute
    with_it = config.copy()
    with_it.trainer.recompute = True
    assert build_parts(with_it, None, is_empty=True)["backbone"].recompute
    assert "recompute" not in trainer_settings(with_it)
