"""One tiny model of each family that may be loaded, and its `config.json` in the form of `transformers` 5 and in the older one.

A family's fields are what its published checkpoints have beside the common ones. The older form is what `transformers` 4 wrote and
most published folders hold: the rotary settings as `rope_theta` and `rope_scaling`, `torch_dtype`, no `layer_types`, a head's width
and the number of key-value heads only where they are not the usual ones.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from r1_lightning.model.hf_config import config_to_hf
from tests.model.tiny import tiny
from tests.support.hf_folders import DENSE, VOCABULARY, write_tokenizer

QUERY_VALUE = ("q_proj", "v_proj")
LLAMA_3 = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
YARN = {"rope_type": "yarn", "rope_theta": 10_000.0, "factor": 4.0, "original_max_position_embeddings": 64}
GRANITE = {
    "embedding_multiplier": 12.0,
    "residual_multiplier": 0.22,
    "attention_multiplier": 0.1,
    "logits_scaling": 3.0,
}


@dataclass(frozen=True)
class Family:
    """Fields of the newer form; `older` are those that published folders of the family have in the older form only."""

    kind: str
    fields: dict[str, Any] = field(default_factory=dict)
    older: dict[str, Any] = field(default_factory=dict)
    targets: tuple[str, ...] = QUERY_VALUE  # of LoRA
    is_ours: bool = False  # our own backbone computes it


def _deepseek(scoring: str) -> dict[str, Any]:
    groups = {"n_expert_groups": 1, "n_limited_groups": 1} if scoring == "softmax" else {}
    fields = config_to_hf(tiny(vocab_size=VOCABULARY, max_positions=256, router_scoring=scoring, mtp_depth=0, **groups))
    return {
        name: value for name, value in fields.items() if name not in ("rope_theta", "rope_scaling", "architectures")
    }


WINDOW_UNUSED = {"use_sliding_window": False, "sliding_window": 4, "max_window_layers": 1}
FAMILIES: dict[str, Family] = {
    "qwen2": Family("qwen2", {"tie_word_embeddings": True}, WINDOW_UNUSED),
    "qwen3": Family("qwen3", {"head_dim": 16, "tie_word_embeddings": True}, {**WINDOW_UNUSED, "attention_bias": False}),
    "llama": Family("llama", {"num_key_value_heads": 4}, {"pretraining_tp": 1, "rope_scaling": None}),
    "llama 3": Family("llama", {"rope_parameters": LLAMA_3}),
    "llama, yarn": Family("llama", {"rope_parameters": YARN}),
    "mistral": Family("mistral", {"sliding_window": None, "head_dim": 8}),
    "smollm": Family(
        "llama", {"tie_word_embeddings": True, "rope_parameters": {"rope_type": "default", "rope_theta": 1e5}}
    ),
    "smollm3": Family(
        "smollm3",
        {"no_rope_layers": [1, 0], "use_sliding_window": False, "pad_token_id": None, "tie_word_embeddings": True},
        {"no_rope_layer_interval": 2, "max_window_layers": 1, "sliding_window": None},
    ),
    "gemma": Family("gemma", {"head_dim": 16, "tie_word_embeddings": True}, {"hidden_activation": "gelu_pytorch_tanh"}),
    "phi3": Family("phi3", {"sliding_window": None, "pad_token_id": None}, targets=("qkv_proj",)),
    "phi3, partly rotated": Family(
        "phi3",
        {
            "sliding_window": None,
            "pad_token_id": None,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 0.5},
        },
        targets=("qkv_proj",),
    ),
    "granite": Family("granite", GRANITE, {"attention_bias": False}),
    "olmo": Family("olmo", {"clip_qkv": 2.0}),
    "olmo2": Family("olmo2"),
    "glm": Family(
        "glm",
        {
            "head_dim": 8,
            "pad_token_id": None,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 0.5},
        },
    ),
    "glm4": Family(
        "glm4",
        {
            "head_dim": 8,
            "pad_token_id": None,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 0.5},
        },
    ),
    "deepseek_v3": Family("deepseek_v3", _deepseek("sigmoid"), is_ours=True),
    "deepseek_v2": Family("deepseek_v2", _deepseek("softmax"), is_ours=True),
}


def family_folder(folder: Path, family: Family) -> Path:
    """A folder as `transformers` 5 writes it, with a random model."""
    from transformers import AutoConfig, AutoModelForCausalLM

    write_tokenizer(folder)
    fields = family.fields if family.is_ours else {**DENSE, "tie_word_embeddings": False, **family.fields}
    torch.manual_seed(0)
    named = {name: value for name, value in fields.items() if name != "model_type"}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family.kind, **named))
    with torch.no_grad():  # norms, biases and the router's bias are 1 or 0 when drawn, and would not be missed
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point() and (tensor.ndim == 1 or "bias" in name):
                tensor.add_(0.1 * torch.randn_like(tensor))
            elif family.is_ours and tensor.is_floating_point():
                tensor.mul_(8.0)  # drawn with 0.02, where DENSE says 0.2
    model.save_pretrained(folder, max_shard_size="60KB")
    return folder


def in_older_form(folder: Path, family: Family) -> None:
    """Rewrite `config.json` as `transformers` 4 would have written it."""
    path = folder / "config.json"
    fields = json.loads(path.read_text(encoding="utf-8"))
    rope = fields.pop("rope_parameters", None) or {}
    fields["rope_theta"] = rope.pop("rope_theta", 10_000.0)
    if (partial := rope.pop("partial_rotary_factor", None)) is not None:
        fields["partial_rotary_factor"] = partial
    kind = rope.pop("rope_type", "default")
    fields["rope_scaling"] = None if kind == "default" else {"rope_type": kind, "type": kind, **rope}
    fields["torch_dtype"] = fields.pop("dtype", "float32")
    fields.pop("layer_types", None)
    if fields.get("num_key_value_heads") == fields["num_attention_heads"] and not family.is_ours:
        del fields["num_key_value_heads"]
    if fields.get("head_dim") == fields["hidden_size"] // fields["num_attention_heads"] and family.kind == "llama":
        del fields["head_dim"]
    notes = {"_name_or_path": "somebody/else", "transformers_version": "4.40.0", "use_cache": True}
    path.write_text(json.dumps({**fields, **family.older, **notes}), encoding="utf-8")
