"""Which weights embed, score, route or convolve, in families that name them in a dozen ways."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from r1_lightning.model.hf_model import HFBackbone, HFModelConfig
from r1_lightning.model.lora import LoraSettings
from r1_lightning.model.reward_head import RewardModel
from r1_lightning.model.roles import unmapped
from tests.model.tiny import backbone, tiny
from tests.support.hf_folders import DENSE, adapted

GPT2 = {"vocab_size": 64, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32, "max_position_embeddings": 32}
SMALL = {**DENSE, "vocab_size": 64, "head_dim": 8}
MIXTURE = {
    "num_local_experts": 4,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    "sliding_window": None,
}
# model_type, other fields -> the matrices that keep AdamW, layer numbers left out.
FAMILIES: list[tuple[str, dict[str, Any], set[str]]] = [
    ("qwen2", {"tie_word_embeddings": True}, {"model.embed_tokens.weight"}),
    ("qwen2", {"tie_word_embeddings": False}, {"model.embed_tokens.weight", "lm_head.weight"}),
    ("llama", {"tie_word_embeddings": False}, {"model.embed_tokens.weight", "lm_head.weight"}),
    ("qwen3", {"tie_word_embeddings": True}, {"model.embed_tokens.weight"}),
    ("gpt2", GPT2, {"transformer.wte.weight", "transformer.wpe.weight"}),
    (
        "gpt2",
        {**GPT2, "tie_word_embeddings": False},
        {"transformer.wte.weight", "transformer.wpe.weight", "lm_head.weight"},
    ),
    ("gpt_neox", {}, {"gpt_neox.embed_in.weight", "lm_head.weight"}),
    ("mixtral", MIXTURE, {"model.embed_tokens.weight", "lm_head.weight", "model.layers.N.mlp.gate.weight"}),
    ("qwen3_moe", MIXTURE, {"model.embed_tokens.weight", "lm_head.weight", "model.layers.N.mlp.gate.weight"}),
    (
        "qwen2_moe",
        MIXTURE,
        {
            "model.embed_tokens.weight",
            "lm_head.weight",
            "model.layers.N.mlp.gate.weight",
            "model.layers.N.mlp.shared_expert_gate.weight",
        },
    ),
]


def names(model: nn.Module) -> set[str]:
    """The matrices of `model` that keep AdamW, without layer numbers and without the wrapper's `model.`."""
    kept = unmapped(model)
    found = [name for name, p in model.named_parameters() if id(p) in kept and p.dim() > 1]
    return {".".join("N" if part.isdigit() else part for part in name.split(".")) for name in found}


def made(kind: str, fields: dict[str, Any]) -> HFBackbone:
    return HFBackbone(HFModelConfig({"model_type": kind, **SMALL, **fields}))


@pytest.mark.parametrize(("kind", "fields", "expected"), FAMILIES, ids=[f"{k}-{len(e)}" for k, _, e in FAMILIES])
def test_embeddings_heads_and_routers_of_every_family(kind: str, fields: dict[str, Any], expected: set[str]) -> None:
    assert names(made(kind, fields)) == {f"model.{name}" for name in expected}


@pytest.mark.parametrize("kind", ["qwen2", "gpt2"])
def test_a_reward_models_score_head_keeps_adamw_too(kind: str) -> None:
    fields = GPT2 if kind == "gpt2" else {"tie_word_embeddings": True}
    inner = made(kind, fields)
    assert names(RewardModel(inner)) == {"score.weight", *(f"backbone.{name}" for name in names(inner))}


def test_our_own_models() -> None:
    model = backbone(tiny())
    expected = {"embedding.weight", "head.weight", "blocks.N.feed_forward.router.weight"}
    expected |= {name for name in names(model) if name.startswith("mtp_modules.") and name.endswith(".router.weight")}
    assert names(model) == expected and len(expected) == 4
    assert names(RewardModel(model)) == {"score.weight", *(f"backbone.{name}" for name in expected)}


@pytest.mark.parametrize("target", ["q_proj", "down_proj", "o_proj"])
def test_loras_factors_are_mapped_through(target: str) -> None:
    pytest.importorskip("peft")
    model = adapted(LoraSettings(2, 8.0, target_modules=[target]))
    assert not any(".lora_" in name for name in names(model))
    assert any(f"{target}.lora_A" in name for name, p in model.named_parameters() if p.requires_grad)


@pytest.mark.parametrize("layer", [nn.Conv1d(4, 4, 3, groups=4), nn.Conv2d(2, 3, 3), nn.EmbeddingBag(5, 4)])
def test_filters_and_bags_are_no_matrices(layer: nn.Module) -> None:
    assert unmapped(nn.Sequential(nn.Linear(4, 4), layer)) == {id(p) for p in layer.parameters()}


def test_a_gate_without_experts_is_a_layer_like_any_other() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate, self.gate_proj = nn.Linear(4, 4), nn.Linear(4, 4)

    assert unmapped(Gated()) == set()
