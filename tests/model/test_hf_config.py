"""HuggingFace's configurations there and back, DeepSeek's published ones, and what is refused."""

from __future__ import annotations

import dataclasses

import pytest

from r1_lightning.model.config import YarnConfig
from r1_lightning.model.hf_config import config_from_hf, config_to_hf, rope_in_both_forms
from r1_lightning.model.hf_weights import state_to_hf
from r1_lightning.types.errors import InvalidInput
from tests.model.test_config import V3
from tests.model.tiny import TINY, backbone, tiny
from tests.parity.configurations import configurations, label

# config.json of deepseek-ai/DeepSeek-V3, the fields that speak of the model
PUBLISHED_V3 = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "ep_size": 1,
    "first_k_dense_replace": 3,
    "hidden_act": "silu",
    "hidden_size": 7168,
    "initializer_range": 0.02,
    "intermediate_size": 18432,
    "kv_lora_rank": 512,
    "max_position_embeddings": 163840,
    "model_type": "deepseek_v3",
    "moe_intermediate_size": 2048,
    "moe_layer_freq": 1,
    "n_group": 8,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "norm_topk_prob": True,
    "num_attention_heads": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 61,
    "num_key_value_heads": 128,
    "num_nextn_predict_layers": 1,
    "q_lora_rank": 1536,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "rms_norm_eps": 1e-06,
    "rope_scaling": {
        "beta_fast": 32,
        "beta_slow": 1,
        "factor": 40,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
        "original_max_position_embeddings": 4096,
        "type": "yarn",
    },
    "rope_theta": 10000,
    "routed_scaling_factor": 2.5,
    "scoring_func": "sigmoid",
    "tie_word_embeddings": False,
    "topk_group": 4,
    "topk_method": "noaux_tc",
    "v_head_dim": 128,
    "vocab_size": 129280,
}


@pytest.mark.parametrize("config", configurations(), ids=label)
def test_configuration_there_and_back(config):
    assert config_from_hf(config_to_hf(config)) == config


def test_configuration_through_transformers_and_back():
    from transformers import DeepseekV3Config

    for config in (TINY, tiny(yarn=YarnConfig(factor=4.0, original_max_positions=16), q_lora_rank=None)):
        assert config_from_hf(DeepseekV3Config(**config_to_hf(config)).to_dict()) == config


def test_published_configuration_of_v3():
    config = config_from_hf(PUBLISHED_V3)
    expected = dataclasses.replace(V3, max_positions=163840, init_std=0.02)  # else as in the report
    assert config == expected


def test_special_tokens_are_passed_on_and_none_unless_given():
    fields = config_to_hf(TINY, eos_token_id=7, pad_token_id=3)
    assert [fields[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")] == [None, 7, 3]
    with pytest.raises(InvalidInput, match="special_token_ids='unk_token_id'"):
        config_to_hf(TINY, unk_token_id=1)


YARN = YarnConfig(factor=4.0, original_max_positions=24, beta_fast=2.0, beta_slow=0.1, mscale=0.7, mscale_all_dim=0.5)
OLD_YARN = {"factor": 4.0, "original_max_position_embeddings": 64, "beta_fast": 32.0, "beta_slow": 1.0}


@pytest.mark.parametrize(
    ("rope", "theta", "scaling"),
    [
        ({"rope_type": "default", "rope_theta": 1e6}, 1e6, None),
        ({"rope_theta": 5e5}, 5e5, None),
        (
            {"rope_type": "yarn", "rope_theta": 1e4, **OLD_YARN},
            1e4,
            {"rope_type": "yarn", "type": "yarn", **OLD_YARN},
        ),
        (
            {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0},
            1e4,
            {"rope_type": "linear", "type": "linear", "factor": 2.0},
        ),
        (
            {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0},
            5e5,
            {"rope_type": "llama3", "type": "llama3", "factor": 8.0, "low_freq_factor": 1.0},
        ),
    ],
)
def test_rotary_settings_in_both_forms(rope, theta, scaling):
    fields = rope_in_both_forms({"model_type": "llama", "rope_parameters": rope})
    assert fields["rope_parameters"] == rope
    assert (fields["rope_theta"], fields["rope_scaling"]) == (theta, scaling)


@pytest.mark.parametrize(
    "fields",
    [
        {"rope_theta": 1e4, "rope_scaling": {"type": "yarn"}},  # as published
        {"rope_parameters": {"full_attention": {"rope_theta": 1e6}, "sliding_attention": {"rope_theta": 1e4}}},
        {"rope_parameters": None},
        {},
    ],
)
def test_what_has_no_newer_form_stays_as_it_is(fields):
    assert rope_in_both_forms(fields) == fields


@pytest.mark.parametrize("config", [TINY, tiny(yarn=YARN), tiny(rope_theta=5e5)])
def test_the_older_form_says_the_same(config):
    """Read without `rope_parameters`, as before transformers 5, and with both, as by transformers 5."""
    fields = config_to_hf(config)
    old = {name: value for name, value in fields.items() if name != "rope_parameters"}
    assert config_from_hf(old) == config_from_hf(fields) == config
    theirs = pytest.importorskip("transformers").AutoConfig.for_model(
        fields["model_type"], **{k: v for k, v in fields.items() if k != "model_type"}
    )
    found = {name: value for name, value in theirs.rope_parameters.items() if name != "type"}
    assert found == fields["rope_parameters"]


def test_lightning_attention_is_refused_with_the_reason():
    model = backbone(tiny(attention_kind="lightning", softmax_attention_every=2))
    reason = "model.attention_kind='lightning' .* transformers has no class with both"
    for convert in (config_to_hf, lambda config: state_to_hf(model.state_dict(), config)):
        with pytest.raises(InvalidInput, match=reason):
            convert(model.config)


def test_no_field_of_the_configuration_is_lost_by_transformers():
    """Every name is one that DeepseekV3Config knows or keeps; a renamed field there would fall back to its default."""
    from transformers import DeepseekV3Config

    fields = config_to_hf(TINY, eos_token_id=7)
    kept = DeepseekV3Config(**fields).to_dict()
    # transformers writes two counts under its newer names
    renamed = {"num_nextn_predict_layers": "num_mtp_layers"}
    different = {
        name: value
        for name, value in fields.items()
        if name not in ("rope_parameters", "rope_theta") and kept.get(name, kept.get(renamed.get(name, name))) != value
    }
    assert different == {}
    assert kept["rope_parameters"]["rope_theta"] == fields["rope_theta"]  # it lies there since transformers 5
    assert fields["rope_parameters"].items() <= kept["rope_parameters"].items()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "llama"}, "model_type='llama'"),
        ({"model_type": "deepseek_v2"}, "norm_topk_prob=True"),
        ({"scoring_func": "softmax"}, "scoring_func='softmax'"),
        ({"topk_method": "greedy"}, "topk_method='greedy'"),
        ({"norm_topk_prob": False}, "norm_topk_prob=False"),
        ({"attention_bias": True}, "attention_bias=True"),
        ({"hidden_act": "gelu"}, "hidden_act='gelu'"),
        ({"rope_interleave": False}, "rope_interleave=False"),
        ({"moe_layer_freq": 2}, "moe_layer_freq=2"),
        ({"num_key_value_heads": 8}, "num_key_value_heads=8"),
        ({"hidden_size": "7168"}, "model.d_model='7168'"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_type='linear'"),
        ({"rope_scaling": {"type": "yarn", "factor": 2.0}}, "original_max_position_embeddings=None"),
        (
            {"rope_scaling": PUBLISHED_V3["rope_scaling"] | {"attention_factor": 1.2}},
            "rope_parameters.attention_factor=1.2",
        ),
    ],
)
def test_another_model_is_refused(changes, message):
    with pytest.raises(InvalidInput, match=message):
        config_from_hf(PUBLISHED_V3 | changes)


def test_a_missing_field_is_named():
    fields = {name: value for name, value in PUBLISHED_V3.items() if name != "kv_lora_rank"}
    with pytest.raises(InvalidInput, match="kv_lora_rank is missing"):
        config_from_hf(fields)


# config.json of deepseek-ai/DeepSeek-V2-Lite, where it differs from V3's.
PUBLISHED_V2_LITE = PUBLISHED_V3 | {
    "architectures": ["DeepseekV2ForCausalLM"],
    "model_type": "deepseek_v2",
    "aux_loss_alpha": 0.001,
    "first_k_dense_replace": 1,
    "hidden_size": 2048,
    "intermediate_size": 10944,
    "moe_intermediate_size": 1408,
    "n_group": 1,
    "n_routed_experts": 64,
    "n_shared_experts": 2,
    "norm_topk_prob": False,
    "num_attention_heads": 16,
    "num_experts_per_tok": 6,
    "num_hidden_layers": 27,
    "num_key_value_heads": 16,
    "num_nextn_predict_layers": 0,
    "q_lora_rank": None,
    "rope_scaling": PUBLISHED_V3["rope_scaling"] | {"mscale": 0.707, "mscale_all_dim": 0.707},
    "routed_scaling_factor": 1.0,
    "scoring_func": "softmax",
    "topk_group": 1,
    "topk_method": "greedy",
    "vocab_size": 102400,
}


def test_v2s_router_is_told_by_its_model_type():
    config = config_from_hf(PUBLISHED_V2_LITE)
    assert (config.router_scoring, config.q_lora_rank, config.yarn.mscale) == ("softmax", None, 0.707)
    assert config_from_hf(config_to_hf(config)) == config


def test_v2s_choice_by_groups_is_refused():
    with pytest.raises(InvalidInput, match="topk_method='group_limited_greedy'"):
        config_from_hf(PUBLISHED_V2_LITE | {"topk_method": "group_limited_greedy", "n_group": 8})
    with pytest.raises(InvalidInput, match=r"model\.n_expert_groups=2"):
        tiny(router_scoring="softmax", n_expert_groups=2)
