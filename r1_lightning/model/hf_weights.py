"""Maps the weights of our backbone to HuggingFace's and back: names, halves, stacks, and the place of MTP modules.

`hf_views` returns, for every tensor of `DeepseekV3ForCausalLM` (or V2's), the views of our tensors that hold the same numbers, so
one table serves reading and writing. This file reads and writes nothing and does not import `transformers`. Besides names:

- gate and up of a feed-forward are one matrix here (gate first), two in HuggingFace;
- routed experts are stacked E x in x out here, E x out x in in HuggingFace's module, and one tensor per expert in files, as
  DeepSeek publishes them and as `save_pretrained` writes them;
- HuggingFace stores MTP modules as extra layers after the last (V3's layer 61), and their projection takes [embedding; hidden],
  not [hidden; embedding] as printed in V3 eq 21: `transformers` (`MtpLayer`), vLLM and SGLang, which run the published
  weights, all apply `eh_proj` to [enorm(embedding); hnorm(hidden)]. So we swap the two halves.

The rotary pairs are interleaved on both sides, so no row of an attention matrix moves.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from r1_lightning.functional.shards import Window, windows
from r1_lightning.model.config import ModelConfig
from r1_lightning.model.hf_config import check_expressible
from r1_lightning.types.errors import require
from r1_lightning.types.tensors import Views

TIED_HEAD = "lm_head.weight"
# Suffix of a stored tensor that holds all experts of a layer.
STACKED_EXPERTS = ".mlp.experts.gate_up_proj"


class _Rule(NamedTuple):
    """One tensor of ours, HuggingFace's tensors for it, and the views of ours that they equal, in the same order."""

    ours: str
    theirs: tuple[str, ...]
    parts: Callable[[Tensor], list[Views]] = lambda whole: [(whole,)]


def _halves(rows: Tensor) -> list[Views]:
    return [(half,) for half in rows.chunk(2, dim=0)]


def _swapped_columns(matrix: Tensor) -> list[Views]:
    return [matrix.chunk(2, dim=1)[::-1]]


def _stacked_experts(weight_Eio: Tensor) -> list[Views]:
    return [(weight_Eio.transpose(1, 2),)]


def _gates_and_ups(weight_EDF: Tensor) -> list[Views]:
    return [(half.T,) for expert in weight_EDF for half in expert.chunk(2, dim=1)]


def _each_expert(weight_EFD: Tensor) -> list[Views]:
    return [(expert.T,) for expert in weight_EFD]


def hf_views(
    state: Mapping[str, Tensor], config: ModelConfig, with_mtp: bool = False, stacked: bool = False
) -> dict[str, Views]:
    """Return, by HuggingFace's name, the views of `state` whose concatenation along the last dimension is HuggingFace's tensor.

    `state` is that of a `DeepSeekBackbone`. A tied head is the embedding and has no entry. Routed experts have an entry each, as
    in files, or one for all if `stacked`, as in the module. MTP modules are left out unless `with_mtp`. Raises InvalidInput naming
    a tensor that is missing or unknown.
    """
    check_expressible(config)
    rules = list(_rules(config, with_mtp, stacked))
    _check_names(state, {rule.ours for rule in rules}, () if with_mtp else ("mtp_modules.",))
    views: dict[str, Views] = {}
    for rule in rules:
        views.update(zip(rule.theirs, rule.parts(state[rule.ours]), strict=True))
    if config.tie_embeddings:
        del views[TIED_HEAD]
    return views


def hf_windows(
    state: Mapping[str, Tensor], config: ModelConfig, with_mtp: bool = False, stacked: bool = False
) -> dict[str, tuple[Window, ...]]:
    """Return what this process holds of each of `hf_views`; the tensors of `state` may be divided over processes."""
    frame = {name: torch.empty(tensor.shape, device="meta") for name, tensor in state.items()}
    wanted = hf_views(frame, config, with_mtp, stacked)
    found: dict[str, tuple[Window, ...]] = {}
    for rule in _rules(config, with_mtp, stacked):
        found.update(zip(rule.theirs, windows(state[rule.ours], rule.parts), strict=True))
    return {name: found[name] for name in wanted}


def state_to_hf(
    state: Mapping[str, Tensor], config: ModelConfig, with_mtp: bool = False, stacked: bool = True
) -> dict[str, Tensor]:
    """Convert the state of a `DeepSeekBackbone` to all of `DeepseekV3ForCausalLM`'s, for a strict load (a tied head included)."""
    converted = {name: joined(views) for name, views in hf_views(state, config, with_mtp, stacked).items()}
    return converted | ({TIED_HEAD: state["head.weight"]} if config.tie_embeddings else {})


def joined(views: Views) -> Tensor:
    """Concatenate `views` along the last dimension; shares their memory where possible."""
    return (views[0] if len(views) == 1 else torch.cat(views, dim=-1)).contiguous()


def is_left_out(name: str, config: ModelConfig, with_mtp: bool) -> bool:
    """True if a stored tensor has no entry in `hf_views` and may be skipped.

    These are: layers after the last, which hold MTP modules (with copies of the main model's embedding and head); a tied head, a
    copy of the embedding; rotary frequencies in older files.
    """
    extra_layers = [f"model.layers.{config.n_layers + depth}." for depth in range(max(config.mtp_depth, 1))]
    copies = ("embed_tokens.", "shared_head.head.") if with_mtp else ("",)
    in_extra_layer = name.startswith(tuple(layer + copy for layer in extra_layers for copy in copies))
    is_tied_head = config.tie_embeddings and name == TIED_HEAD
    return in_extra_layer or is_tied_head or name.endswith("rotary_emb.inv_freq")


def stored_mtp_depth(names: Iterator[str], n_layers: int) -> int:
    """Return the number of MTP modules after layer `n_layers - 1` among the stored `names`."""
    found = (re.fullmatch(r"model\.layers\.(\d{1,6})\.eh_proj\.weight", name) for name in names)
    layers = {int(match[1]) for match in found if match}
    return len([layer for layer in layers if layer >= n_layers])


def _check_names(state: Mapping[str, Tensor], wanted: set[str], ignored: tuple[str, ...]) -> None:
    missing = sorted(wanted - set(state))
    require(not missing, "state", missing[:1], f"it lacks {len(missing)} tensors of the model, this is the first")
    unknown = sorted(name for name in state if name not in wanted and not name.startswith(ignored))
    require(not unknown, "state", unknown[:1], f"{len(unknown)} tensors belong nowhere, this is the first")


def _rules(config: ModelConfig, with_mtp: bool, stacked: bool) -> Iterator[_Rule]:
    yield _Rule("embedding.weight", ("model.embed_tokens.weight",))
    yield _Rule("norm.weight", ("model.norm.weight",))
    yield _Rule("head.weight", (TIED_HEAD,))
    for layer in range(config.n_layers):
        is_dense = layer < config.n_dense_layers
        yield from _block_rules(config, f"blocks.{layer}.", f"model.layers.{layer}.", is_dense, stacked)
    for depth in range(config.mtp_depth if with_mtp else 0):
        ours, theirs = f"mtp_modules.{depth}.", f"model.layers.{config.n_layers + depth}."
        yield _Rule(f"{ours}hidden_norm.weight", (f"{theirs}hnorm.weight",))
        yield _Rule(f"{ours}embedding_norm.weight", (f"{theirs}enorm.weight",))
        yield _Rule(f"{ours}combine.weight", (f"{theirs}eh_proj.weight",), _swapped_columns)
        yield _Rule(f"{ours}norm.weight", (f"{theirs}shared_head.norm.weight",))
        yield from _block_rules(config, f"{ours}block.", theirs, config.n_dense_layers == config.n_layers, stacked)


def _block_rules(config: ModelConfig, ours: str, theirs: str, is_dense: bool, stacked: bool) -> Iterator[_Rule]:
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
    yield from _expert_rules(config.n_routed_experts, f"{ours}feed_forward.experts.", f"{theirs}mlp.experts.", stacked)


def _expert_rules(n_experts: int, ours: str, theirs: str, stacked: bool) -> Iterator[_Rule]:
    if stacked:
        yield _Rule(f"{ours}gate_up.weight", (f"{theirs}gate_up_proj",), _stacked_experts)
        yield _Rule(f"{ours}down.weight", (f"{theirs}down_proj",), _stacked_experts)
        return
    pairs = [f"{theirs}{e}.{name}_proj.weight" for e in range(n_experts) for name in ("gate", "up")]
    yield _Rule(f"{ours}gate_up.weight", tuple(pairs), _gates_and_ups)
    yield _Rule(f"{ours}down.weight", tuple(f"{theirs}{e}.down_proj.weight" for e in range(n_experts)), _each_expert)


def _feed_forward_rules(ours: str, theirs: str) -> Iterator[_Rule]:
    yield _Rule(f"{ours}gate_up.weight", (f"{theirs}gate_proj.weight", f"{theirs}up_proj.weight"), _halves)
    yield _Rule(f"{ours}down.weight", (f"{theirs}down_proj.weight",))
