"""Converts between `ModelConfig` and the `config.json` of HuggingFace's DeepseekV3 and DeepseekV2, in both directions.

Pure mappings: no file is read or written, and `transformers` is not imported. V2's models differ only in the router:
softmax affinities that are not normalised again, and no biases (V2 section 2.2; `ModelConfig.router_scoring`). The norms
after c^KV and c^Q have eps 1e-6 on both sides, whatever `rms_norm_eps` says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from r1_lightning.model.attention import layer_kinds
from r1_lightning.model.config import ModelConfig, YarnConfig
from r1_lightning.model.rope import yarn_scale
from r1_lightning.types.errors import InvalidInput, require, require_choice

_SAME_MEANING = {  # ours -> HuggingFace's
    "vocab_size": "vocab_size",
    "d_model": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_dense_layers": "first_k_dense_replace",
    "n_heads": "num_attention_heads",
    "q_lora_rank": "q_lora_rank",
    "kv_lora_rank": "kv_lora_rank",
    "qk_nope_head_dim": "qk_nope_head_dim",
    "qk_rope_head_dim": "qk_rope_head_dim",
    "v_head_dim": "v_head_dim",
    "d_ff_dense": "intermediate_size",
    "d_ff_expert": "moe_intermediate_size",
    "n_routed_experts": "n_routed_experts",
    "n_shared_experts": "n_shared_experts",
    "n_activated_experts": "num_experts_per_tok",
    "n_expert_groups": "n_group",
    "n_limited_groups": "topk_group",
    "route_scale": "routed_scaling_factor",
    "balance_loss_alpha": "aux_loss_alpha",
    "mtp_depth": "num_nextn_predict_layers",
    "max_positions": "max_position_embeddings",
    "init_std": "initializer_range",
    "norm_eps": "rms_norm_eps",
    "tie_embeddings": "tie_word_embeddings",
}
_OPTIONAL = {"balance_loss_alpha", "mtp_depth", "init_std", "norm_eps", "tie_embeddings"}  # if absent, our default
_FIXED = {  # constants of this backbone; config_from_hf refuses a configuration with other values
    "hidden_act": "silu",
    "attention_bias": False,
    "attention_dropout": 0.0,
    "moe_layer_freq": 1,
}
# Each family's router: model_type -> (our router_scoring, the router's fields in config.json).
_ROUTERS: dict[str, tuple[str, dict[str, Any]]] = {
    "deepseek_v3": (
        "sigmoid",
        {"norm_topk_prob": True, "rope_interleave": True, "scoring_func": "sigmoid", "topk_method": "noaux_tc"},
    ),
    "deepseek_v2": ("softmax", {"norm_topk_prob": False, "scoring_func": "softmax", "topk_method": "greedy"}),
}
FAMILIES = tuple(_ROUTERS)
_CLASSES = {"deepseek_v3": "DeepseekV3ForCausalLM", "deepseek_v2": "DeepseekV2ForCausalLM"}
_SPECIAL_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")


def config_to_hf(config: ModelConfig, **special_token_ids: int | list[int] | None) -> dict[str, Any]:
    """Return the fields of a DeepseekV3 `config.json` (V2's with a softmax router); special token ids are None unless given.

    Raises InvalidInput for a model with a kind of attention that no class of `transformers` has.
    """
    check_expressible(config)
    for name in special_token_ids:
        require(name in _SPECIAL_TOKENS, "special_token_ids", name, f"its names are {', '.join(_SPECIAL_TOKENS)}")
    fields = {theirs: getattr(config, ours) for ours, theirs in _SAME_MEANING.items()}
    family = next(name for name, (scoring, _) in _ROUTERS.items() if scoring == config.router_scoring)
    return {
        "architectures": [_CLASSES[family]],
        "model_type": family,
        **_FIXED,
        **_ROUTERS[family][1],
        **fields,
        "num_key_value_heads": config.n_heads,
        **rope_in_both_forms({"rope_parameters": _rope_to_hf(config)}),
        **dict.fromkeys(_SPECIAL_TOKENS),
        **special_token_ids,
    }


def config_from_hf(fields: Mapping[str, Any]) -> ModelConfig:
    """Return the `ModelConfig` of a DeepseekV3 or V2 `config.json`, as published (`rope_scaling`) or newer (`rope_parameters`).

    Raises InvalidInput for a missing field and for a model that this backbone cannot express: V2's routing by groups,
    biases, fewer key-value heads than heads, an activation other than SiLU, rotary scaling other than YaRN.
    """
    family = fields.get("model_type", "deepseek_v3")
    require_choice("model_type", family, _ROUTERS)
    scoring, router = _ROUTERS[family]
    for name, value in {**_FIXED, **router}.items():
        require(fields.get(name, value) == value, name, fields.get(name), f"this backbone has {value!r}")
    heads = fields.get("num_attention_heads")
    key_value_heads = fields.get("num_key_value_heads")
    require(key_value_heads in (None, heads), "num_key_value_heads", key_value_heads, f"MLA has one per head, {heads}")
    values: dict[str, Any] = {}
    for ours, theirs in _SAME_MEANING.items():
        if theirs in fields:
            values[ours] = fields[theirs]
        elif ours not in _OPTIONAL:
            raise InvalidInput(f"{theirs} is missing: the configuration of a {family} model must give it")
    theta, yarn = _rope_from_hf(fields)
    return ModelConfig(**values, rope_theta=theta, yarn=yarn, router_scoring=scoring)


def rope_in_both_forms(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return `fields` of a `config.json` with the rotary settings in the form of `transformers` 5 and in the older form.

    The older form (`transformers` 4 and most other readers) is `rope_theta`, plus `rope_scaling` if the scaling is not the
    default. Fields that hold it already, or that set a rope for each kind of layer, stay as they are.
    """
    rope = fields.get("rope_parameters")
    if not isinstance(rope, Mapping) or "rope_theta" not in rope or fields.get("rope_scaling"):
        return dict(fields)
    kind = rope.get("rope_type", "default")
    scaling = None if kind == "default" else {name: value for name, value in rope.items() if name != "rope_theta"}
    if scaling is not None:
        scaling["type"] = kind
    partial = {name: rope[name] for name in ("partial_rotary_factor",) if name in rope}
    return {**fields, "rope_theta": rope["rope_theta"], "rope_scaling": scaling, **partial}


def check_expressible(config: ModelConfig) -> None:
    """Raise InvalidInput if `transformers` has no class for such a model."""
    for kind in layer_kinds(config):
        require(kind.hf_refusal is None, "model.attention_kind", kind.name, str(kind.hf_refusal))


def _rope_to_hf(config: ModelConfig) -> dict[str, Any]:
    yarn = config.yarn
    if yarn is None:
        return {"rope_type": "default", "rope_theta": float(config.rope_theta)}
    gain = yarn_scale(yarn.factor, yarn.mscale) / yarn_scale(yarn.factor, yarn.mscale_all_dim)
    return {
        "rope_type": "yarn",
        "rope_theta": float(config.rope_theta),
        "factor": float(yarn.factor),
        "original_max_position_embeddings": yarn.original_max_positions,
        "beta_fast": float(yarn.beta_fast),
        "beta_slow": float(yarn.beta_slow),
        "mscale": float(yarn.mscale),
        "mscale_all_dim": float(yarn.mscale_all_dim),
        "attention_factor": gain,  # written out: HuggingFace derives another one where an mscale is 0
    }


def _rope_from_hf(fields: Mapping[str, Any]) -> tuple[float, YarnConfig | None]:
    rope = fields.get("rope_parameters") or fields.get("rope_scaling") or {}
    theta = float(rope.get("rope_theta", fields.get("rope_theta", 10000.0)))
    kind = rope.get("rope_type", rope.get("type", "default"))
    require(kind in ("default", "yarn"), "rope_type", kind, "it must be default or yarn")
    if kind == "default":
        return theta, None
    for name in ("factor", "original_max_position_embeddings", "mscale", "mscale_all_dim"):
        require(rope.get(name) is not None, f"rope_parameters.{name}", rope.get(name), "YaRN needs it")
    yarn = YarnConfig(
        factor=float(rope["factor"]),
        original_max_positions=rope["original_max_position_embeddings"],
        beta_fast=float(rope.get("beta_fast") or 32.0),
        beta_slow=float(rope.get("beta_slow") or 1.0),
        mscale=float(rope["mscale"]),
        mscale_all_dim=float(rope["mscale_all_dim"]),
    )
    gain = yarn_scale(yarn.factor, yarn.mscale) / yarn_scale(yarn.factor, yarn.mscale_all_dim)
    written = rope.get("attention_factor", gain)
    agrees = written is None or abs(written - gain) < 1e-9
    require(agrees, "rope_parameters.attention_factor", written, f"mscale and mscale_all_dim give {gain}")
    return theta, yarn
