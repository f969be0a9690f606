"""What an engine is told of a policy: fields and tensors that give its log-probs in code that is not ours."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from r1_lightning.model.backbone import DeepSeekBackbone
from r1_lightning.model.hf_model import HFBackbone, HFModelConfig
from r1_lightning.model.lora import LoraSettings, is_adapter
from r1_lightning.rollout.engine_model import engine_model, latent_scale, made
from r1_lightning.types.errors import InvalidInput
from tests.model.tiny import backbone, pack, random_documents, randomise, tiny
from tests.rollout.fakes import MarkovBackbone
from tests.support.hf_folders import DENSE

EOS, PAD = [3], 0
QWEN = {"model_type": "qwen2", **DENSE, "tie_word_embeddings": True, "_name_or_path": "x", "torch_dtype": "bfloat16"}


def logits_of(fields: dict[str, Any], tensors: dict[str, Tensor], ids: list[int]) -> Tensor:
    """Those of `transformers`, T x V, with one eps for all norms, as engines have it."""
    from transformers import AutoConfig, AutoModelForCausalLM

    fields = dict(fields)
    config = AutoConfig.for_model(fields.pop("model_type"), **fields)
    config._attn_implementation = "eager"
    model = AutoModelForCausalLM.from_config(config).eval()
    for name, part in model.named_modules():
        if name.endswith(("kv_a_layernorm", "q_a_layernorm")):
            part.variance_epsilon = config.rms_norm_eps
    experts = sorted({name.split(".experts.")[0] for name in tensors if ".mlp.experts." in name})
    stacked = {name: tensor for name, tensor in tensors.items() if ".mlp.experts." not in name}
    for layer in experts:
        count = fields["n_routed_experts"]
        each = [
            [tensors[f"{layer}.experts.{e}.{kind}_proj.weight"] for e in range(count)]
            for kind in ("gate", "up", "down")
        ]
        stacked[f"{layer}.experts.gate_up_proj"] = torch.cat([torch.stack(each[0]), torch.stack(each[1])], dim=1)
        stacked[f"{layer}.experts.down_proj"] = torch.stack(each[2])
    model.load_state_dict(stacked)
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0]


@torch.no_grad()
def ours(policy: Any, ids: list[int]) -> Tensor:
    return policy.unembed(policy.hidden(pack([[ids]]), with_mtp=False).hidden[0])


@pytest.mark.parametrize(
    "changes",
    [{}, {"norm_eps": 1e-5}, {"norm_eps": 1e-5, "q_lora_rank": None}, {"norm_eps": 1e-7}, {"tie_embeddings": True}],
    ids=["eps of the latents", "moonlight's eps", "without c^Q", "a smaller eps", "tied"],
)
def test_our_backbone_is_the_engines_model(changes: dict[str, Any]) -> None:
    """Small latents, where eps is felt: left as they are, an eps of 1e-5 moves the logits by more than 1e-3."""
    model = backbone(tiny(**changes))
    for block in model.blocks:
        down = block.attention
        for layer in (down.kv_down, getattr(down, "q_down", None)):
            if layer is not None:
                layer.weight.data[: model.config.kv_lora_rank] *= 3e-3
    told = engine_model(model, EOS, PAD)
    (ids,) = random_documents([20], model.config.vocab_size, seed=1)
    expected = ours(model, ids)
    torch.testing.assert_close(logits_of(told.fields, made(told.tensors()), ids), expected, atol=2e-5, rtol=0)
    if latent_scale(model.config) > 1:
        unscaled = {**made(told.tensors())}
        for name in unscaled:
            if name.endswith(("kv_a_proj_with_mqa.weight", "q_a_proj.weight")):
                rows = model.config.kv_lora_rank if "kv_a" in name else None
                unscaled[name][:rows] /= latent_scale(model.config)
        assert float((logits_of(told.fields, unscaled, ids) - expected).abs().max()) > 1e-3


def test_the_scale_by_hand() -> None:
    """sqrt(1e-5 / 1e-6) = sqrt 10."""
    assert latent_scale(tiny(norm_eps=1e-5)) == pytest.approx(3.1622777)
    assert latent_scale(tiny()) == 1.0


def test_scaling_leaves_the_policy_and_the_rotary_key_as_they_are() -> None:
    model = backbone(tiny(norm_eps=1e-5))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    tensors = made(engine_model(model, EOS, PAD).tensors())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    down, rank = before["blocks.0.attention.kv_down.weight"], model.config.kv_lora_rank
    theirs = tensors["model.layers.0.self_attn.kv_a_proj_with_mqa.weight"]
    assert torch.equal(theirs[rank:], down[rank:]) and not torch.equal(theirs[:rank], down[:rank])


def test_fields_of_our_backbone() -> None:
    assert engine_model(backbone(tiny(tie_embeddings=True)), EOS, PAD).fields["tie_word_embeddings"] is False
    told = engine_model(backbone(tiny()), EOS, PAD)
    assert told.fields["architectures"] == ["DeepseekV3ForCausalLM"] and told.fields["num_nextn_predict_layers"] == 0
    assert (told.fields["eos_token_id"], told.fields["pad_token_id"]) == (3, 0)
    assert engine_model(backbone(tiny()), [3, 4], PAD).fields["eos_token_id"] == [3, 4]
    assert (told.head_width, told.latent_width) == (8 + 4, 16 + 4)
    assert not [name for name in told.tensors() if "layers.2" in name or "mtp" in name]


def test_tensors_are_those_of_the_moment_and_share_memory_where_forms_agree() -> None:
    model = backbone(tiny())
    told = engine_model(model, EOS, PAD)
    assert told.tensors()["model.norm.weight"]().data_ptr() == model.norm.weight.data_ptr()
    randomise(model, seed=9)
    assert torch.equal(told.tensors()["lm_head.weight"](), model.state_dict()["head.weight"])


def test_a_model_of_transformers() -> None:
    model = HFBackbone(HFModelConfig(QWEN), seed=3)
    told = engine_model(model, EOS, PAD)
    assert told.fields["architectures"] == ["Qwen2ForCausalLM"] and told.fields["eos_token_id"] == 3
    assert "torch_dtype" not in told.fields and "_name_or_path" not in told.fields
    assert (told.head_width, told.latent_width) == (32 // 4, None)
    tensors = made(told.tensors())
    assert told.fields["tie_word_embeddings"] is False  # vLLM would go on with the head that it packed first
    assert torch.equal(tensors["lm_head.weight"], tensors["model.embed_tokens.weight"])
    ids = list(range(5, 25))
    torch.testing.assert_close(logits_of(told.fields, tensors, ids), ours(model, ids), atol=2e-5, rtol=0)


def test_adapters_are_added_to_their_weights() -> None:
    pytest.importorskip("peft")
    model = HFBackbone(HFModelConfig(QWEN, LoraSettings(rank=2, alpha=4.0)), seed=3)
    for name, parameter in model.named_parameters():
        if is_adapter(name):
            torch.nn.init.normal_(parameter.data, std=0.3, generator=torch.Generator().manual_seed(1))
    told = engine_model(model, EOS, PAD)
    tensors = made(told.tensors())
    assert not [name for name in tensors if "lora" in name or "base_layer" in name]
    ids = list(range(5, 25))
    torch.testing.assert_close(logits_of(told.fields, tensors, ids), ours(model, ids), atol=2e-5, rtol=0)
    plain = HFBackbone(HFModelConfig(QWEN), seed=3)
    assert float((ours(plain, ids) - ours(model, ids)).abs().max()) > 0.01


def test_other_models_are_refused() -> None:
    assert isinstance(backbone(tiny()), DeepSeekBackbone)
    with pytest.raises(InvalidInput, match="model=MarkovBackbone is not allowed: no engine reads it"):
        engine_model(MarkovBackbone(torch.zeros(2, 2)), EOS, PAD)
