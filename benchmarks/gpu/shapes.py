"""Models of any width with DeepSeek-V3's proportions, small enough in depth for one GPU with its optimizer.

Heads of 128 + 64 and values of 128, as V3 has them; feed-forwards and the query's latent grow with the width as V3's do
(18432, 2048 and 1536 at 7168). Depth, experts and vocabulary are ours: at width 4096 weights, gradients and AdamW's state are
some 30 GB. No MTP module, so that tokens mean the same for every trainer.
"""

from __future__ import annotations

from dataclasses import replace

from r1_lightning.model.config import ModelConfig

V3_WIDTH, V3_DENSE, V3_EXPERT, V3_Q_RANK = 7168, 18432, 2048, 1536
V3_HEAD, V3_ROPE = 128, 64
STEP = 64  # widths that tensor cores like


def shape_of(
    width: int,
    vocab_size: int = 32_768,
    n_layers: int = 4,
    n_routed_experts: int = 32,
    kv_lora_rank: int = 512,
    max_positions: int = 4096,
) -> ModelConfig:
    """The shape at this width: one dense block, the others with `n_routed_experts`, of which a quarter serve each token."""
    return ModelConfig(
        vocab_size=vocab_size,
        d_model=width,
        n_layers=n_layers,
        n_dense_layers=1,
        n_heads=max(1, width // V3_HEAD),
        q_lora_rank=_scaled(width, V3_Q_RANK),
        kv_lora_rank=kv_lora_rank,
        qk_nope_head_dim=V3_HEAD,
        qk_rope_head_dim=V3_ROPE,
        v_head_dim=V3_HEAD,
        d_ff_dense=_scaled(width, V3_DENSE),
        d_ff_expert=_scaled(width, V3_EXPERT),
        n_routed_experts=n_routed_experts,
        n_shared_experts=1,
        n_activated_experts=max(1, n_routed_experts // 4),
        mtp_depth=0,
        max_positions=max_positions,
    )


def dense_shape_of(
    width: int, vocab_size: int = 32_768, n_layers: int = 8, kv_lora_rank: int = 512, max_positions: int = 4096
) -> ModelConfig:
    """The same without mixtures: every block is dense, and there are more of them."""
    shape = shape_of(width, vocab_size, n_layers, kv_lora_rank=kv_lora_rank, max_positions=max_positions)
    return replace(shape, n_dense_layers=n_layers)


def kind_of(config: ModelConfig) -> str:
    """ "dense" or "mixture", for titles."""
    return "dense" if config.n_dense_layers == config.n_layers else "mixture"


def _scaled(width: int, at_v3: int) -> int:
    """What is `at_v3` at V3's width, at this one, as a multiple of STEP."""
    return max(1, round(width * at_v3 / V3_WIDTH / STEP)) * STEP
