"""Between our backbone and HuggingFace's DeepseekV3: the only file that knows HuggingFace's names.

Pure mappings of dictionaries, both ways: `config_*` between `ModelConfig` and the fields of `config.json`, `state_*`
between the state dict of `DeepSeekBackbone` and that of `DeepseekV3ForCausalLM`. Nothing is read, written or downloaded
here, and `transformers` is not imported. Three things differ besides names:

- gate and up of a feed-forward are one matrix here (gate first), two there; of routed experts one on both sides;
- routed experts are stored E x in x out here, E x out x in there (on disk HuggingFace writes one tensor per expert and
  fuses them when loading: this file speaks of the fused ones, and `unfused_experts` takes them apart);
- MTP modules lie there as extra layers after the last (V3's layer 61), and their projection takes [embedding; hidden],
  not [hidden; embedding] as printed in V3 eq 21: its two halves change places.

The rotary pairs are interleaved on both sides, so no row of an attention matrix moves. The norms after c^KV and c^Q
have eps 1e-6 on both sides, whatever `rms_norm_eps` says. A model with lightning attention has no counterpart there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from r1_lightning.model.config import ModelConfig, YarnConfig
from r1_lightning.model.rope import yarn_scale
from r1_lightning.types.errors import InvalidInput, require

# --------------------------------------------------------------------------------------------------------------- config

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
_OPTIONAL = {"balance_loss_alpha", "mtp_depth", "init_std", "norm_eps", "tie_embeddings"}  # absent: our default holds
_FIXED = {  # what this backbone always does; a configuration that says otherwise describes another model
    "model_type": "deepseek_v3",
    "hidden_act": "silu",
    "attention_bias": False,
    "attention_dropout": 0.0,
    "norm_topk_prob": True,
    "rope_interleave": True,
    "scoring_func": "sigmoid",
    "topk_method": "noaux_tc",
    "moe_layer_freq": 1,
}
_SPECIAL_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")


def config_to_hf(config: ModelConfig, **special_token_ids: int | None) -> dict[str, Any]:
    """The fields of a DeepseekV3 `config.json`; `bos_`, `eos_` and `pad_token_id` are None unless given.

    Raises InvalidInput for a model with lightning attention.
    """
    _check_expressible(config)
    for name in special_token_ids:
        require(name in _SPECIAL_TOKENS, "special_token_ids", name, f"its names are {', '.join(_SPECIAL_TOKENS)}")
    fields = {theirs: getattr(config, ours) for ours, theirs in _SAME_MEANING.items()}
    return {
        "architectures": ["DeepseekV3ForCausalLM"],
        **_FIXED,
        **fields,
        "num_key_value_heads": config.n_heads,
        "rope_parameters": _rope_to_hf(config),
        **dict.fromkeys(_SPECIAL_TOKENS),
        **special_token_ids,
    }


def config_from_hf(fields: Mapping[str, Any]) -> ModelConfig:
    """The `ModelConfig` of a DeepseekV3 `config.json`, as published (`rope_scaling`) or newer (`rope_parameters`).

    Raises InvalidInput for a missing field and for a model that this backbone cannot express: softmax routing (V2),
    biases, fewer key-value heads than heads, an activation other than SiLU, rotary scaling other than YaRN.
    """
    for name, value in _FIXED.items():
        require(fields.get(name, value) == value, name, fields.get(name), f"this backbone has {value!r}")
    heads = fields.get("num_attention_heads")
    key_value_heads = fields.get("num_key_value_heads")
    require(key_value_heads in (None, heads), "num_key_value_heads", key_value_heads, f"MLA has one per head, {heads}")
    values: dict[str, Any] = {}
    for ours, theirs in _SAME_MEANING.items():
        if theirs in fields:
            values[ours] = fields[theirs]
        elif ours not in _OPTIONAL:
            raise InvalidInput(f"{theirs} is missing: a DeepseekV3 configuration must give it")
    theta, yarn = _rope_from_hf(fields)
    return ModelConfig(**values, rope_theta=theta, yarn=yarn)


def _check_expressible(config: ModelConfig) -> None:
    reason = "transformers has no class with both MLA and lightning attention"
    require(config.attention_kind == "mla", "model.attention_kind", config.attention_kind, reason)


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


# ---------------------------------------------------------------------------------------------------------------- state


class _Rule(NamedTuple):
    """One tensor of ours and where it lies in HuggingFace's state: as it is, in two halves, transposed, or swapped."""

    ours: str
    theirs: tuple[str, ...]
    form: str = "same"


def state_to_hf(state: Mapping[str, Tensor], config: ModelConfig, with_mtp: bool = False) -> dict[str, Tensor]:
    """State of `DeepSeekBackbone` to that of `DeepseekV3ForCausalLM`, which loads it strictly.

    MTP modules are left out, because that class has none, unless `with_mtp`: then they are written as the layers after
    the last, as in DeepSeek's published checkpoints. Raises InvalidInput naming a tensor that is missing or unknown.
    """
    ignored = () if with_mtp else ("mtp_modules.",)
    rules = list(_rules(config, with_mtp))
    _check_names(state, {rule.ours for rule in rules}, ignored)
    converted: dict[str, Tensor] = {}
    for rule in rules:
        converted.update(zip(rule.theirs, _split(state[rule.ours], rule.form), strict=True))
    return converted


def state_from_hf(state: Mapping[str, Tensor], config: ModelConfig, with_mtp: bool = False) -> dict[str, Tensor]:
    """State of `DeepseekV3ForCausalLM` to that of `DeepSeekBackbone`; experts are fused, as in the module in memory.

    Without `with_mtp` layers after the last are passed over, and the result fits a backbone with `mtp_depth=0` (or
    `load_state_dict(strict=False)`). With tied embeddings the head may be absent. Raises InvalidInput naming a tensor
    that is missing or unknown, such as the scales of an FP8 checkpoint.
    """
    state = dict(state)
    if config.tie_embeddings and "model.embed_tokens.weight" in state:
        state.setdefault("lm_head.weight", state["model.embed_tokens.weight"])
    extra_layers = [f"model.layers.{config.n_layers + depth}." for depth in range(max(config.mtp_depth, 1))]
    copies = ("embed_tokens.", "shared_head.head.")  # published MTP layers repeat the main model's embedding and head
    ignored = tuple(layer + copy for layer in extra_layers for copy in copies) if with_mtp else tuple(extra_layers)
    rules = list(_rules(config, with_mtp))
    _check_names(state, {name for rule in rules for name in rule.theirs}, ignored)
    return {rule.ours: _join([state[name] for name in rule.theirs], rule.form) for rule in rules}


def unfused_experts(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """HuggingFace's state as checkpoints on disk name it, and engines that read them: a tensor per routed expert.

    `experts.gate_up_proj` E x 2F x D becomes `experts.{e}.gate_proj.weight` and `experts.{e}.up_proj.weight`, F x D each;
    `experts.down_proj` E x D x F becomes `experts.{e}.down_proj.weight`, D x F. The results are views; the rest stays.
    """
    apart: dict[str, Tensor] = {}
    for name, tensor in state.items():
        stem, _, last = name.rpartition(".")
        if not stem.endswith(".experts"):
            apart[name] = tensor
            continue
        projections = ("gate_proj", "up_proj") if last == "gate_up_proj" else (last,)
        for expert, fused in enumerate(tensor):
            for projection, part in zip(projections, fused.chunk(len(projections)), strict=True):
                apart[f"{stem}.{expert}.{projection}.weight"] = part
    return apart


def _split(tensor: Tensor, form: str) -> tuple[Tensor, ...]:
    if form == "halves":
        return tensor.chunk(2, dim=0)
    if form == "transposed":
        return (tensor.transpose(1, 2).contiguous(),)
    if form == "swapped":
        return (torch.cat(tensor.chunk(2, dim=1)[::-1], dim=1),)
    return (tensor,)


def _join(tensors: list[Tensor], form: str) -> Tensor:
    return torch.cat(tensors, dim=0) if form == "halves" else _split(tensors[0], form)[0]


def _check_names(state: Mapping[str, Tensor], wanted: set[str], ignored: tuple[str, ...]) -> None:
    missing = sorted(wanted - set(state))
    require(not missing, "state", missing[:1], f"it lacks {len(missing)} tensors of the model, this is the first")
    unknown = sorted(name for name in state if name not in wanted and not name.startswith(ignored))
    require(not unknown, "state", unknown[:1], f"{len(unknown)} tensors belong nowhere, this is the first")


def _rules(config: ModelConfig, with_mtp: bool) -> Iterator[_Rule]:
    _check_expressible(config)
    yield _Rule("embedding.weight", ("model.embed_tokens.weight",))
    yield _Rule("norm.weight", ("model.norm.weight",))
    yield _Rule("head.weight", ("lm_head.weight",))
    for layer in range(config.n_layers):
        yield from _block_rules(config, f"blocks.{layer}.", f"model.layers.{layer}.", layer < config.n_dense_layers)
    for depth in range(config.mtp_depth if with_mtp else 0):
        ours, theirs = f"mtp_modules.{depth}.", f"model.layers.{config.n_layers + depth}."
        yield _Rule(f"{ours}hidden_norm.weight", (f"{theirs}hnorm.weight",))
        yield _Rule(f"{ours}embedding_norm.weight", (f"{theirs}enorm.weight",))
        yield _Rule(f"{ours}combine.weight", (f"{theirs}eh_proj.weight",), "swapped")
        yield _Rule(f"{ours}norm.weight", (f"{theirs}shared_head.norm.weight",))
        yield from _block_rules(config, f"{ours}block.", theirs, config.n_dense_layers == config.n_layers)


def _block_rules(config: ModelConfig, ours: str, theirs: str, is_dense: bool) -> Iterator[_Rule]:
    yield _Rule(f"{ours}attention_norm.weight", (f"{theirs}input_layernorm.weight",))
    yield _Rule(f"{ours}feed_forward_norm.weight", (f"{theirs}post_attention_layernorm.weight",))
    names = {"kv_down": "kv_a_proj_with_mqa", "kv_norm": "kv_a_layernorm", "kv_up": "kv_b_proj", "out": "o_proj"}
    if config.q_lora_rank is None:
        names["q_proj"] = "q_proj"
    else:
        names |= {"q_down": "q_a_proj", "q_norm": "q_a_layernorm", "q_up": "q_b_proj"}
    for our_name, their_name in names.items():
        yield _Rule(f"{ours}attention.{our_name}.weight", (f"{theirs}self_attn.{their_name}.weight",))
    if is_dense:
        yield from _feed_forward_rules(f"{ours}feed_forward.", f"{theirs}mlp.")
        return
    yield from _feed_forward_rules(f"{ours}feed_forward.shared.", f"{theirs}mlp.shared_experts.")
    yield _Rule(f"{ours}feed_forward.router.weight", (f"{theirs}mlp.gate.weight",))
    yield _Rule(f"{ours}feed_forward.router.expert_bias", (f"{theirs}mlp.gate.e_score_correction_bias",))
    yield _Rule(f"{ours}feed_forward.experts.gate_up.weight", (f"{theirs}mlp.experts.gate_up_proj",), "transposed")
    yield _Rule(f"{ours}feed_forward.experts.down.weight", (f"{theirs}mlp.experts.down_proj",), "transposed")


def _feed_forward_rules(ours: str, theirs: str) -> Iterator[_Rule]:
    yield _Rule(f"{ours}gate_up.weight", (f"{theirs}gate_proj.weight", f"{theirs}up_proj.weight"), "halves")
    yield _Rule(f"{ours}down.weight", (f"{theirs}down_proj.weight",))
