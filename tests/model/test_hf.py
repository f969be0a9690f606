"""HuggingFace's names: mappings there and back, DeepSeek's published configuration, and what is refused."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from safetensors.torch import load_file

from r1_lightning.model.config import YarnConfig
from r1_lightning.model.hf import config_from_hf, config_to_hf, state_from_hf, state_to_hf, unfused_experts
from r1_lightning.types.errors import InvalidInput
from tests.model.test_config import V3
from tests.model.tiny import TINY, backbone, hf_twin, tiny
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


# ------------------------------------------------------------------------------------------------------ configuration


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
        if name != "rope_parameters" and kept.get(name, kept.get(renamed.get(name, name))) != value
    }
    assert different == {}
    assert fields["rope_parameters"].items() <= kept["rope_parameters"].items()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "deepseek_v2"}, "model_type='deepseek_v2'"),
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


# -------------------------------------------------------------------------------------------------------------- state


@pytest.mark.parametrize("config", configurations(), ids=label)
@pytest.mark.parametrize("with_mtp", [False, True])
def test_state_there_and_back_is_the_same_bits(config, with_mtp):
    state = backbone(config).state_dict()
    back = state_from_hf(state_to_hf(state, config, with_mtp), config, with_mtp)
    kept = {name for name in state if with_mtp or not name.startswith("mtp_modules.")}
    assert back.keys() == kept
    assert all(torch.equal(back[name], state[name]) for name in kept)
    assert all(tensor.is_contiguous() for tensor in back.values())


def test_state_of_huggingface_there_and_back():
    twin = hf_twin(backbone())
    state = twin.state_dict()
    back = state_to_hf(state_from_hf(state, TINY), TINY)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)


def test_where_each_piece_goes():
    state = backbone().state_dict()
    converted = state_to_hf(state, TINY, with_mtp=True)
    dense = state["blocks.0.feed_forward.gate_up.weight"]  # gate first
    assert torch.equal(converted["model.layers.0.mlp.gate_proj.weight"], dense[:40])
    assert torch.equal(converted["model.layers.0.mlp.up_proj.weight"], dense[40:])
    experts = state["blocks.1.feed_forward.experts.gate_up.weight"]
    assert torch.equal(converted["model.layers.1.mlp.experts.gate_up_proj"][5], experts[5].T)
    bias = state["blocks.1.feed_forward.router.expert_bias"]
    assert torch.equal(converted["model.layers.1.mlp.gate.e_score_correction_bias"], bias)
    combine = state["mtp_modules.0.combine.weight"]  # [hidden; embedding] becomes [embedding; hidden]
    assert torch.equal(converted["model.layers.2.eh_proj.weight"][:, :32], combine[:, 32:])
    assert torch.equal(converted["model.layers.2.eh_proj.weight"][:, 32:], combine[:, :32])


def test_experts_apart_are_what_transformers_writes_to_disk(tmp_path):
    """Same names, same bits as `save_pretrained`, which splits the fused experts with code of its own."""
    model = backbone()
    hf_twin(model).save_pretrained(tmp_path)
    written = {name: tensor for path in tmp_path.glob("*.safetensors") for name, tensor in load_file(path).items()}
    apart = unfused_experts(state_to_hf(model.state_dict(), TINY))
    assert apart.keys() == written.keys()
    assert all(torch.equal(apart[name], written[name]) for name in written)


def test_experts_apart_by_hand():
    """2 experts, inner width 1, model width 2: gate first, then up; the other tensors and their order stay."""
    fused = {
        "a.weight": torch.zeros(1),
        "m.experts.gate_up_proj": torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]]),
        "m.experts.down_proj": torch.tensor([[[9.0], [10.0]], [[11.0], [12.0]]]),
        "z.weight": torch.ones(1),
    }
    apart = {name: tensor.tolist() for name, tensor in unfused_experts(fused).items()}
    assert list(apart.items()) == [
        ("a.weight", [0.0]),
        ("m.experts.0.gate_proj.weight", [[1.0, 2.0]]),
        ("m.experts.0.up_proj.weight", [[3.0, 4.0]]),
        ("m.experts.1.gate_proj.weight", [[5.0, 6.0]]),
        ("m.experts.1.up_proj.weight", [[7.0, 8.0]]),
        ("m.experts.0.down_proj.weight", [[9.0], [10.0]]),
        ("m.experts.1.down_proj.weight", [[11.0], [12.0]]),
        ("z.weight", [1.0]),
    ]


def test_a_tied_head_may_be_absent():
    config = tiny(tie_embeddings=True)
    state = backbone(config).state_dict()
    published = state_to_hf(state, config)
    del published["lm_head.weight"]
    assert torch.equal(state_from_hf(published, config)["head.weight"], state["embedding.weight"])
    with pytest.raises(InvalidInput, match=r"lm_head\.weight"):
        state_from_hf(published, tiny())


def test_mtp_layers_are_passed_over_unless_wanted():
    state = backbone().state_dict()
    published = state_to_hf(state, TINY, with_mtp=True)
    published["model.layers.2.embed_tokens.weight"] = state["embedding.weight"]  # DeepSeek's file repeats them
    published["model.layers.2.shared_head.head.weight"] = state["head.weight"]
    assert state_from_hf(published, TINY).keys() == {name for name in state if not name.startswith("mtp_modules.")}
    assert state_from_hf(published, TINY, with_mtp=True).keys() == state.keys()


@pytest.mark.parametrize("direction", [state_to_hf, state_from_hf])
def test_missing_and_unknown_tensors_are_named(direction):
    state = backbone().state_dict()
    if direction is state_from_hf:
        state = state_to_hf(state, TINY)
    name = sorted(state)[0]
    with pytest.raises(InvalidInput, match=f"state=.*{name}.* lacks 1 tensors"):
        direction({key: value for key, value in state.items() if key != name}, TINY)
    with pytest.raises(InvalidInput, match=r"state=.*weight_scale_inv.* 1 tensors belong nowhere"):
        direction({**state, "model.layers.0.self_attn.o_proj.weight_scale_inv": torch.ones(1)}, TINY)
