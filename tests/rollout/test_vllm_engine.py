"""The one file that speaks to vLLM, against a fake of its published interface: what it passes, and what arrives."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from r1_lightning.rollout import vllm_engine
from r1_lightning.rollout.sampler import SamplerSettings, SamplingConfig
from r1_lightning.rollout.vllm_engine import VLLMEngine, WeightReceiver, require_vllm, tensor_digest, weights_digest
from r1_lightning.types.errors import InvalidInput
from tests.model.tiny import backbone, hf_twin, tiny
from tests.rollout import fake_vllm

EOS, PAD = 3, 0
CONFIG = tiny(tie_embeddings=True)  # the tied head is where safetensors would refuse


@pytest.fixture
def llm(monkeypatch: pytest.MonkeyPatch) -> type[fake_vllm.LLM]:
    return fake_vllm.install(monkeypatch)


def engine_of(**changes: object) -> VLLMEngine:
    settings = SamplerSettings(SamplingConfig(), [EOS], PAD, seed=0, max_rows=7)
    return VLLMEngine(tiny(tie_embeddings=True, **changes), settings, "bfloat16", 0.25)


def disk_names() -> dict[str, Tensor]:
    from r1_lightning.rollout.vllm_sampler import engine_weights

    return engine_weights(backbone(CONFIG))


def digest_of(weights: dict[str, Tensor]) -> str:
    return weights_digest({name: tensor_digest(name, tensor) for name, tensor in weights.items()})


# ------------------------------------------------------------------------------------------------------------- checksums


def test_a_tensors_digest_by_hand() -> None:
    """1.0 in little-endian FP32 is 00 00 80 3f, in BF16 80 3f."""
    plain = hashlib.sha256(b"a\0torch.float32\0(1, 2)\0" + bytes.fromhex("0000803f00000000")).hexdigest()
    assert tensor_digest("a", torch.tensor([[1.0, 0.0]])) == plain
    half = hashlib.sha256(b"a\0torch.bfloat16\0()\0" + bytes.fromhex("803f")).hexdigest()
    assert tensor_digest("a", torch.tensor(1.0, dtype=torch.bfloat16)) == half


def test_name_type_shape_and_every_number_count_and_strides_do_not() -> None:
    tensor = torch.arange(6.0).view(2, 3)
    others = [tensor.double(), tensor.view(3, 2), -tensor, tensor.flip(0), tensor + 1e-6]
    digests = [tensor_digest("a", other) for other in others] + [tensor_digest("b", tensor)]
    assert len({tensor_digest("a", tensor), *digests}) == 7
    assert tensor_digest("a", tensor.T.contiguous().T) == tensor_digest("a", tensor)


def test_the_order_of_tensors_does_not_count_and_which_holds_what_does() -> None:
    assert weights_digest({"a": "1", "b": "2"}) == hashlib.sha256(b"a 1\nb 2\n").hexdigest()
    assert weights_digest({"b": "2", "a": "1"}) == weights_digest({"a": "1", "b": "2"})
    assert weights_digest({"a": "2", "b": "1"}) != weights_digest({"a": "1", "b": "2"}) != weights_digest({"a": "1"})


# ------------------------------------------------------------------------------------------------------------ the worker


class Reloader(WeightReceiver):
    """A worker that takes `taken` tensors of what it is given, and keeps them."""

    def __init__(self, taken: int) -> None:
        self.taken = taken
        self.got: dict[str, Tensor] = {}

    def reload_weights(self, weights_iterator: Iterator[tuple[str, Tensor]]) -> None:  # type: ignore[override]
        for _ in range(self.taken):
            name, tensor = next(weights_iterator)
            self.got[name] = tensor


def test_the_worker_says_what_it_read_and_no_more(tmp_path: Path) -> None:
    weights = {f"w{i}": torch.full((2,), float(i)) for i in range(3)}
    save_file({"w2": weights["w2"]}, tmp_path / "00001.safetensors")
    save_file({"w0": weights["w0"], "w1": weights["w1"]}, tmp_path / "00000.safetensors")
    whole, cut = Reloader(3), Reloader(2)
    assert whole.receive_weights_from(str(tmp_path)) == digest_of(weights)
    assert list(whole.got) == ["w0", "w1", "w2"] and torch.equal(whole.got["w2"], weights["w2"])
    assert cut.receive_weights_from(str(tmp_path)) == digest_of({"w0": weights["w0"], "w1": weights["w1"]})


def test_the_workers_own_names_are_left_alone() -> None:
    names = {name for name in dir(WeightReceiver) if not name.startswith("__")}
    assert names == {"receive_weights_from"}
    assert f"{WeightReceiver.__module__}.{WeightReceiver.__qualname__}" == vllm_engine.RECEIVER


# ------------------------------------------------------------------------------------------------------------ the engine


def test_missing_vllm_is_named_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_engine, "find_spec", lambda name: None)
    line = r"rollout=vllm is not allowed: vLLM is not installed here; pip install -e '\.\[vllm\]'$"
    for call in (require_vllm, lambda: engine_of().generate([], []), lambda: engine_of().load_weights([])):
        with pytest.raises(InvalidInput, match=line):
            call()


def test_nothing_starts_before_it_is_needed(llm: type[fake_vllm.LLM]) -> None:
    engine = engine_of()
    assert llm.started == []
    engine.load_weights([disk_names()])
    engine.load_weights([disk_names()])
    assert len(llm.started) == 1


def test_what_vllm_is_started_with(llm: type[fake_vllm.LLM]) -> None:
    engine = engine_of()
    engine.load_weights([disk_names()])
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
    }
    fields = llm.started[0].worker.fields
    assert fields["architectures"] == ["DeepseekV3ForCausalLM"] and fields["hidden_size"] == CONFIG.d_model
    assert (fields["eos_token_id"], fields["pad_token_id"], fields["num_nextn_predict_layers"]) == (EOS, PAD, 0)


@pytest.mark.parametrize("pieces", [1, 2, 60])
def test_weights_arrive_whole_in_any_number_of_chunks(llm: type[fake_vllm.LLM], pieces: int) -> None:
    weights = disk_names()
    names = list(weights)
    step = -(-len(names) // pieces)
    chunks = [{name: weights[name] for name in names[i : i + step]} for i in range(0, len(names), step)]
    assert engine_of().load_weights(chunks) == [digest_of(weights)]
    loaded = llm.started[0].worker.model_runner.model.state_dict()
    expected = hf_twin(backbone(CONFIG)).state_dict()
    assert loaded.keys() == expected.keys() and all(torch.equal(loaded[name], expected[name]) for name in expected)


def test_a_bit_that_flips_on_the_way_changes_the_checksum(
    llm: type[fake_vllm.LLM], monkeypatch: pytest.MonkeyPatch
) -> None:
    def flipped(path: Path) -> dict[str, Tensor]:
        weights = load_file(path)
        weights["model.norm.weight"].view(torch.int32)[0] ^= 1
        return weights

    monkeypatch.setattr(vllm_engine, "load_file", flipped)
    weights = disk_names()
    (theirs,) = engine_of().load_weights([weights])
    changed = weights["model.norm.weight"].clone()
    changed.view(torch.int32)[0] ^= 1
    assert theirs == digest_of({**weights, "model.norm.weight": changed}) != digest_of(weights)


def test_old_keys_and_values_are_dropped_or_the_run_ends(
    llm: type[fake_vllm.LLM], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_of()
    engine.load_weights([disk_names()])
    assert not llm.started[0].cached_prefixes_are_stale
    monkeypatch.setattr(llm, "reset_prefix_cache", lambda self: False)
    with pytest.raises(RuntimeError, match="did not drop the keys and values"):
        engine.load_weights([disk_names()])


def test_an_eps_that_vllm_would_not_keep_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"model\.norm_eps=1e-05 is not allowed: vLLM gives every norm the same eps"):
        engine_of(norm_eps=1e-5)
