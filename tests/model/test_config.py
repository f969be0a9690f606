"""The backbone's shape is checked at once, with a line that names the field, the value and what is allowed."""

from __future__ import annotations

import dataclasses

import pytest

from r1_lightning.model.config import ModelConfig, YarnConfig
from r1_lightning.types.errors import InvalidInput
from tests.model.tiny import TINY, tiny

# DeepSeek-V3, report section 4.2 and Table 1 of V2 for the cache
V3 = ModelConfig(
    vocab_size=129280,
    d_model=7168,
    n_layers=61,
    n_dense_layers=3,
    n_heads=128,
    q_lora_rank=1536,
    kv_lora_rank=512,
    qk_nope_head_dim=128,
    qk_rope_head_dim=64,
    v_head_dim=128,
    d_ff_dense=18432,
    d_ff_expert=2048,
    n_routed_experts=256,
    n_shared_experts=1,
    n_activated_experts=8,
    n_expert_groups=8,
    n_limited_groups=4,
    route_scale=2.5,
    yarn=YarnConfig(),
)


def test_derived_widths_of_v3():
    assert V3.qk_head_dim == 192  # 128 + 64
    assert V3.cache_width == 576  # 512 + 64
    assert V3.cache_width * V3.n_layers == 35136


def test_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TINY.d_model = 64


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_heads": 0}, "model.n_heads=0 is not allowed"),
        ({"n_heads": "two"}, "model.n_heads='two' is not allowed"),
        ({"n_heads": 2.0}, "model.n_heads=2.0"),
        ({"n_layers": True}, "model.n_layers=True"),
        ({"q_lora_rank": 0}, "model.q_lora_rank=0"),
        ({"qk_rope_head_dim": 5}, "model.qk_rope_head_dim=5 is not allowed: it must be even"),
        ({"n_dense_layers": 3}, "model.n_dense_layers=3 .* at most 2"),
        ({"mtp_depth": -1}, "model.mtp_depth=-1"),
        ({"route_scale": 0.0}, "model.route_scale=0.0"),
        ({"rope_theta": 1.0}, "model.rope_theta=1.0"),
        ({"balance_loss_alpha": -1e-4}, "model.balance_loss_alpha=-0.0001"),
        ({"init_std": "0.02"}, "model.init_std='0.02'"),
        ({"norm_eps": float("nan")}, "model.norm_eps=nan"),
        ({"tie_embeddings": "yes"}, "model.tie_embeddings='yes'"),
        ({"n_expert_groups": 3, "n_limited_groups": 1}, "model.n_expert_groups=3 .* divide n_routed_experts=8"),
        ({"n_limited_groups": 5}, "model.n_limited_groups=5 .* at most 4"),
        ({"n_expert_groups": 8, "n_limited_groups": 8}, "n_routed_experts / n_expert_groups=1"),  # a best two of one
        ({"n_activated_experts": 5}, "model.n_activated_experts=5 .* at most 4"),  # two groups of two are allowed
        ({"d_ff_expert": 20}, "model.d_ff_expert=20 is not allowed: it must be a multiple of 8"),
        ({"attention_kind": "linear"}, "model.attention_kind='linear' .* one of mla, lightning"),
        ({"softmax_attention_every": 1}, "model.softmax_attention_every=1 .* at least 2"),
        ({"attention_kind": "lightning"}, "model.softmax_attention_every=8 .* at least 2 and at most 2"),
        ({"d_model": 36}, "model.d_model=36 is not allowed: it must be a multiple of 8"),
    ],
)
def test_bad_values_are_named(changes, message):
    with pytest.raises(InvalidInput, match=message) as caught:
        tiny(**changes)
    assert "\n" not in str(caught.value)


def test_every_eighth_layer_keeps_mla():
    kinds = tiny(n_layers=17, attention_kind="lightning").attention_kinds
    assert kinds == (*["lightning"] * 7, "mla", *["lightning"] * 7, "mla", "lightning")
    assert TINY.attention_kinds == ("mla", "mla")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"factor": 0.5}, "yarn.factor=0.5"),
        ({"original_max_positions": 0}, "yarn.original_max_positions=0"),
        ({"beta_fast": 0.5}, "yarn.beta_fast=0.5 .* at least 1.0"),
        ({"beta_slow": 0.0}, "yarn.beta_slow=0.0 .* above 0.0"),
        ({"mscale": "one"}, "yarn.mscale='one'"),
        ({"mscale_all_dim": -1.0}, "yarn.mscale_all_dim=-1.0"),
    ],
)
def test_bad_yarn_values_are_named(changes, message):
    with pytest.raises(InvalidInput, match=message):
        YarnConfig(**changes)
