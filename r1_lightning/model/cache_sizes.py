"""Cache size per token, by kind of attention (DeepSeek-V2 report, Table 1).

Elements per token over all layers l, for n_h heads of width d_h (n_g of them with keys and values in GQA):

    MHA  2 n_h d_h l      GQA  2 n_g d_h l      MQA  2 d_h l      MLA  (d_c + d_h^R) l

MLA's number is the model's own; the others are for the same heads without MLA (d_h is the head width without rotation).
`own_elements` counts the cache of any model, with any kind of attention.
"""

from __future__ import annotations

from r1_lightning.model.attention import layer_kinds
from r1_lightning.model.config import ModelConfig
from r1_lightning.model.precision import BF16

GQA_GROUPS = 8  # as in Llama 3 and the large models of Qwen2.5


def own_elements(config: ModelConfig) -> int:
    """Elements per token of the model's own cache; layers with a recurrent state add none."""
    return sum(kind.cached_elements(config) for kind in layer_kinds(config))


def cache_elements(config: ModelConfig) -> dict[str, int]:
    """Elements per token of a model with MLA, and with other kinds in its place. In a hybrid only layers with a cache count."""
    cached = [kind for kind in layer_kinds(config) if kind.cached_elements(config)]
    width, layers = cached[0].mha_head_dim(config), len(cached)
    return {
        "MHA": 2 * config.n_heads * width * layers,
        "GQA": 2 * min(GQA_GROUPS, config.n_heads) * width * layers,
        "MQA": 2 * width * layers,
        "MLA": own_elements(config),
    }


def cache_bytes_per_token(config: ModelConfig) -> dict[str, int]:
    """`cache_elements` in bytes of BF16."""
    return {kind: BF16 * elements for kind, elements in cache_elements(config).items()}
