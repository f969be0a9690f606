"""Between the state of our backbone and HuggingFace's: names, halves, stacks, and where MTP modules lie.

Pure mappings of dictionaries, both ways, between the state dict of `DeepSeekBackbone` and that of `DeepseekV3ForCausalLM` or V2's.
Three things differ besides names:

- gate and up of a feed-forward are one matrix here (gate first), two there; of routed experts one on both sides;
- routed experts are stored E x in x out here, E x out x in there (on disk HuggingFace writes one tensor per expert and
  fuses them when loading: `Rule.form` knows both);
- MTP modules lie there as extra layers after the last (V3's layer 61), and their projection takes [embedding; hidden],
  not [hidden; embedding] as printed in V3 eq 21: its two halves change places.

The rotary pairs are interleaved on both sides, so no row of an attention matrix moves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from r1_lightning.model.config import ModelConfig
from r1_lightning.types.errors import require


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
    if config.router_scoring == "sigmoid":
        yield _Rule(f"{ours}feed_forward.router.expert_bias", (f"{theirs}mlp.gate.e_score_correction_bias",))
    yield _Rule(f"{ours}feed_forward.experts.gate_up.weight", (f"{theirs}mlp.experts.gate_up_proj",), "transposed")
    yield _Rule(f"{ours}feed_forward.experts.down.weight", (f"{theirs}mlp.experts.down_proj",), "transposed")


def _feed_forward_rules(ours: str, theirs: str) -> Iterator[_Rule]:
    yield _Rule(f"{ours}gate_up.weight", (f"{theirs}gate_proj.weight", f"{theirs}up_proj.weight"), "halves")
    yield _Rule(f"{ours}down.weight", (f"{theirs}down_proj.weight",))
