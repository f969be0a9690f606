"""How much a token costs in the cache, by kind of attention (DeepSeek-V2 report, Table 1).

Elements per token over all layers l, for n_h heads of width d_h (n_g of them with keys and values in GQA):

    MHA  2 n_h d_h l      GQA  2 n_g d_h l      MQA  2 d_h l      MLA  (d_c + d_h^R) l

MLA's are those of the model; the others are what it would cost with the same heads (d_h its width without rotation).
"""

from __future__ import annotations

from r1_lightning.model.config import ModelConfig

GQA_GROUPS = 8  # what Llama 3 and Qwen2.5's large models have
BF16 = 2  # bytes of an element


def cache_elements(config: ModelConfig) -> dict[str, int]:
    """Elements per token, by kind. Of a model with lightning attention only the layers with MLA count."""
    width = config.qk_nope_head_dim
    layers = config.attention_kinds.count("mla")
    return {
        "MHA": 2 * config.n_heads * width * layers,
        "GQA": 2 * min(GQA_GROUPS, config.n_heads) * width * layers,
        "MQA": 2 * width * layers,
        "MLA": config.cache_width * layers,
    }


def cache_bytes_per_token(config: ModelConfig) -> dict[str, int]:
    """The same in bytes of BF16."""
    return {kind: BF16 * elements for kind, elements in cache_elements(config).items()}
