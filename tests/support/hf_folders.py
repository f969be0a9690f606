"""Tiny checkpoints in HuggingFace's form, with random weights and a tokenizer, as `save_pretrained` writes them; LoRA models."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, processors

from r1_lightning.model.hf_model import HFBackbone, HFModelConfig
from r1_lightning.model.lora import LoraSettings, is_adapter
from r1_lightning.model.precision import Precision
from r1_lightning.tasks.arithmetic import ArithmeticTask
from r1_lightning.text.tokenizer import BOS_TOKEN, TOKENIZER_FILE, TextTokenizer, train_tokenizer

VOCABULARY = 432  # more rows than the tokenizer has tokens, as in Qwen2's checkpoints
DENSE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
    "bos_token_id": 0,
    "eos_token_id": 1,
}


@functools.cache
def _tokenizer() -> TextTokenizer:
    return train_tokenizer(ArithmeticTask().documents(0, 0, 200), 400)


def write_tokenizer(folder: Path, begins_with_bos: bool = False) -> None:
    """A tokenizer of 400 tokens for arithmetic; Llama's begin every text with a token of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    _tokenizer().save(folder)
    if begins_with_bos:
        path = str(folder / TOKENIZER_FILE)
        tokenizer = Tokenizer.from_file(path)
        begin = processors.TemplateProcessing(single=f"{BOS_TOKEN} $A", special_tokens=[(BOS_TOKEN, 0)])
        tokenizer.post_processor = begin
        tokenizer.save(path)


def dense_folder(folder: Path, kind: str, max_shard_size: str = "60KB", **changes: Any) -> Path:
    """A Qwen2 (tied) or Llama (untied) checkpoint in several files."""
    from transformers import AutoConfig, AutoModelForCausalLM

    write_tokenizer(folder, begins_with_bos=kind == "llama")
    fields = {**DENSE, "tie_word_embeddings": kind == "qwen2", **changes}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **fields))
    model.save_pretrained(folder, max_shard_size=max_shard_size)
    return folder


def adapted(
    settings: LoraSettings | None = None, precision: Precision | None = None, seed: int = 0, **changes: Any
) -> HFBackbone:
    """A tied Qwen2 with fresh adapters (rank 2, alpha 8, on q and v)."""
    fields = {"model_type": "qwen2", **DENSE, "tie_word_embeddings": True, **changes}
    return HFBackbone(HFModelConfig(fields, settings or LoraSettings(2, 8)), precision, seed)


@torch.no_grad()
def move_adapters(backbone: HFBackbone, seed: int = 1) -> HFBackbone:
    """Adapters as if they had learned something: B is not 0."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in backbone.named_parameters():
        if is_adapter(name):
            parameter.copy_(torch.randn(parameter.shape, generator=generator).mul(0.1))
    return backbone
