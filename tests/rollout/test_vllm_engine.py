"""The one file that speaks to vLLM, against a fake of its published interface: what it passes, and what arrives."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from r1_lightning.rollout import vllm_engine, vllm_worker
from r1_lightning.rollout.engine_model import EngineModel, engine_model, made
from r1_lightning.rollout.vllm_engine import VLLMEngine, environment, require_vllm
from r1_lightning.rollout.vllm_worker import tensor_digest, weights_digest
from r1_lightning.rollout.weight_stream import Tensors, received
from r1_lightning.types.errors import InvalidInput
from tests.model.tiny import backbone, hf_twin, tiny
from tests.rollout import fake_vllm

EOS, PAD = 3, 0
CONFIG = tiny(tie_embeddings=True)  # the tied head is where safetensors would refuse


@pytest.fixture
def llm(monkeypatch: pytest.MonkeyPatch) -> type[fake_vllm.LLM]:
    return fake_vllm.install(monkeypatch)


def engine_of(**changes: Any) -> VLLMEngine:
    model = engine_model(backbone(tiny(tie_embeddings=True, **changes)), [EOS], PAD)
    return VLLMEngine(model, max_rows=7, dtype="bfloat16", gpu_memory_utilization=0.25)


def weights() -> Tensors:
    return engine_model(backbone(CONFIG), [EOS], PAD).tensors()


def digest_of(weights: dict[str, Tensor]) -> str:
    return weights_digest({name: tensor_digest(name, tensor) for name, tensor in weights.items()})


# ------------------------------------------------------------------------------------------------------------ the engine


def test_missing_vllm_is_named_with_where_to_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_engine, "find_spec", lambda name: None)
    line = r"rollout=vllm is not allowed: vLLM is not installed here; docs/guide\.md#sampling-with-vllm says how$"
    for call in (require_vllm, lambda: engine_of().generate([], []), lambda: engine_of().load_weights({})):
        with pytest.raises(InvalidInput, match=line):
            call()
    guide = (Path(__file__).parents[2] / "docs/guide.md").read_text(encoding="utf-8")
    assert "## Sampling with vLLM\n" in guide


def test_nothing_starts_before_it_is_needed(llm: type[fake_vllm.LLM]) -> None:
    engine = engine_of()
    assert llm.started == []
    engine.load_weights(weights())
    engine.load_weights(weights())
    assert len(llm.started) == 1


def test_what_vllm_is_started_with(llm: type[fake_vllm.LLM]) -> None:
    engine = engine_of()
    engine.load_weights(weights())
    settings = dict(llm.started[0].settings)
    assert {path.name for path in Path(settings.pop("model")).iterdir()} == {"config.json"}
    assert settings == {
        "dtype": "bfloat16",
        "gpu_memory_utilization": 0.25,
        "max_num_seqs": 7,
        "load_format": "dummy",
        "skip_tokenizer_init": True,
        "generation_config": "vllm",
        "logprobs_mode": "processed_logprobs",
        "worker_extension_cls": vllm_engine.RECEIVER,
        "enforce_eager": True,
        "enable_chunked_prefill": False,
        "compilation_config": {"custom_ops": ["-rotary_embedding"]},
    }
    fields = llm.started[0].worker.fields
    assert fields["architectures"] == ["DeepseekV3ForCausalLM"] and fields["hidden_size"] == CONFIG.d_model
    assert (fields["eos_token_id"], fields["pad_token_id"], fields["num_nextn_predict_layers"]) == (EOS, PAD, 0)


def test_off_the_cpu_vllm_compiles_as_it_likes(llm: type[fake_vllm.LLM], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["vllm.platforms"].current_platform, "is_cpu", lambda: False)
    given: dict[str, Any] = {}
    monkeypatch.setattr(llm, "__init__", lambda self, **settings: given.update(settings))
    engine_of()._started()
    assert not given.keys() & vllm_engine.OF_CPU.keys()


@pytest.mark.parametrize(
    ("width", "on_cpu", "disabled"), [(576, False, False), (576, True, True), (56, False, True), (None, True, False)]
)
def test_mla_runs_on_kernels_at_their_width_and_on_a_gpu_only(
    llm: type[fake_vllm.LLM], monkeypatch: pytest.MonkeyPatch, width: int | None, on_cpu: bool, disabled: bool
) -> None:
    monkeypatch.delenv("VLLM_MLA_DISABLE", raising=False)
    monkeypatch.setattr(sys.modules["vllm.platforms"].current_platform, "is_cpu", lambda: on_cpu)
    seen: dict[str, str] = {}
    monkeypatch.setattr(llm, "__init__", lambda self, **settings: seen.update(os.environ))
    VLLMEngine(EngineModel({}, dict, 32, width), 1, "float32", 0.5)._started()
    assert ("VLLM_MLA_DISABLE" in seen) is disabled and "VLLM_MLA_DISABLE" not in os.environ
    assert seen["VLLM_CPU_KVCACHE_SPACE"] == "1" and seen["VLLM_NO_USAGE_STATS"] == "1"


def test_the_environment_is_put_back_and_a_persons_choice_is_kept(
    llm: type[fake_vllm.LLM], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fake, as vLLM does, sets LD_PRELOAD for its workers; ours (of rewards) must not get it."""
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "3")
    assert engine_of()._variables()["VLLM_CPU_KVCACHE_SPACE"] == "3"
    before = dict(os.environ)
    engine_of().load_weights(weights())
    assert dict(os.environ) == before
    with pytest.raises(KeyError), environment({"R1_TRIAL": "1"}):
        assert os.environ["R1_TRIAL"] == "1"
        del os.environ["VLLM_CPU_KVCACHE_SPACE"]
        raise KeyError
    assert dict(os.environ) == before


def test_heads_that_its_attention_does_not_have_are_refused_before_it_starts(llm: type[fake_vllm.LLM]) -> None:
    with pytest.raises(InvalidInput) as caught:
        VLLMEngine(EngineModel({}, dict, 16), 1, "float32", 0.5).load_weights({})
    assert str(caught.value) == (
        "model='heads 16 wide' is not allowed: rollout=vllm on a CPU has heads that are 8, 12, 32, 64 wide"
    )
    assert llm.started == []


def test_a_model_that_vllm_does_not_start_with_is_one_line(
    llm: type[fake_vllm.LLM], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: Any, **settings: Any) -> None:
        raise ValueError("1 validation error\n  no such architecture")

    monkeypatch.setattr(llm, "__init__", fails)
    with pytest.raises(InvalidInput) as caught:
        engine_of().load_weights(weights())
    assert str(caught.value) == (
        "rollout=vllm is not allowed: vLLM does not start with this model (1 validation error no such architecture)"
    )


def test_weights_arrive_whole_at_the_first_hand_over_and_at_later_ones(llm: type[fake_vllm.LLM]) -> None:
    """The fake, as vLLM does, spoils experts that are reloaded while it has their kernel."""
    engine, expected = engine_of(), hf_twin(backbone(CONFIG)).state_dict()
    for _ in range(2):
        assert engine.load_weights(weights()) == [digest_of(made(weights()))]
        loaded = llm.started[0].worker.model_runner.model.state_dict()
        assert all(torch.equal(loaded[name], expected[name]) for name in expected)


def test_a_bit_that_flips_on_the_way_changes_the_checksum(
    llm: type[fake_vllm.LLM], monkeypatch: pytest.MonkeyPatch
) -> None:
    def flipped(address: str) -> Any:
        for name, tensor in received(address):
            if name == "model.norm.weight":
                tensor.view(torch.int32)[0] ^= 1
            yield name, tensor

    monkeypatch.setattr(vllm_worker, "received", flipped)
    (theirs,) = engine_of().load_weights(weights())
    ours = made(weights())
    changed = ours["model.norm.weight"].clone()
    changed.view(torch.int32)[0] ^= 1
    assert theirs == digest_of({**ours, "model.norm.weight": changed}) != digest_of(ours)


def test_old_keys_and_values_are_dropped_or_the_run_ends(
    llm: type[fake_vllm.LLM], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_of()
    engine.load_weights(weights())
    assert not llm.started[0].cached_prefixes_are_stale
    monkeypatch.setattr(llm, "reset_prefix_cache", lambda self: False)
    with pytest.raises(RuntimeError, match="did not drop the keys and values"):
        engine.load_weights(weights())
