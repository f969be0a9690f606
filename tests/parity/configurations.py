"""Random backbone shapes for the parity tests, drawn so that every variant of the architecture really occurs.

Each property has a list of values; the list is repeated to the number of configurations and shuffled from a seed. So
every value occurs (which `test_deepseek_v3.py` asserts), in random company.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

from r1_lightning.model.config import ModelConfig, YarnConfig

N_CONFIGURATIONS = 16
_SEED = 20250122

Value = TypeVar("Value")

# V3's own 32 and 1 turns put the whole ramp of a small model into its first dimensions; the second and third have a
# ramp over several pairs. In the third, mscale differs from mscale_all_dim, so that the rotation itself is scaled too.
_YARNS = [
    None,
    YarnConfig(factor=40.0, original_max_positions=16),
    None,
    YarnConfig(factor=4.0, original_max_positions=24, beta_fast=2.0, beta_slow=0.1),
    None,
    YarnConfig(factor=8.0, original_max_positions=32, beta_fast=4.0, beta_slow=0.2, mscale=1.0, mscale_all_dim=0.707),
]
_EXPERTS = [  # routed, activated, groups, limited groups
    (8, 2, 4, 2),
    (4, 2, 1, 1),
    (16, 4, 4, 2),
    (8, 4, 2, 1),
    (16, 8, 8, 4),
    (6, 1, 1, 1),
    (12, 3, 3, 2),
]
_LAYERS = [(3, 1), (2, 0), (3, 2), (2, 2), (3, 0)]  # all, and how many of them dense


def _deal(rng: random.Random, values: Sequence[Value]) -> list[Value]:
    dealt = [values[i % len(values)] for i in range(N_CONFIGURATIONS)]
    rng.shuffle(dealt)
    return dealt


def configurations() -> list[ModelConfig]:
    """`N_CONFIGURATIONS` shapes, the same ones every time."""
    rng = random.Random(_SEED)
    experts, layers = _deal(rng, _EXPERTS), _deal(rng, _LAYERS)
    columns = {
        "vocab_size": _deal(rng, [37, 64, 101]),
        "d_model": _deal(rng, [32, 48, 64]),
        "n_heads": _deal(rng, [2, 3, 4]),
        "q_lora_rank": _deal(rng, [None, 16, 20]),
        "kv_lora_rank": _deal(rng, [12, 16, 24]),
        "qk_nope_head_dim": _deal(rng, [8, 12]),
        "qk_rope_head_dim": _deal(rng, [4, 8, 16]),
        "v_head_dim": _deal(rng, [8, 10, 16]),
        "d_ff_dense": _deal(rng, [40, 64]),
        "d_ff_expert": _deal(rng, [16, 24]),
        "n_shared_experts": _deal(rng, [1, 2, 3]),
        "route_scale": _deal(rng, [1.0, 2.5]),
        "rope_theta": _deal(rng, [10000.0, 100.0]),
        "yarn": _deal(rng, _YARNS),
        "norm_eps": _deal(rng, [1e-6, 1e-3]),  # the latent norms keep 1e-6: a large one elsewhere tells them apart
        "tie_embeddings": _deal(rng, [False, True]),
    }
    made = []
    for i in range(N_CONFIGURATIONS):
        routed, activated, groups, limited = experts[i]
        n_layers, n_dense = layers[i]
        made.append(
            ModelConfig(
                n_layers=n_layers,
                n_dense_layers=n_dense,
                n_routed_experts=routed,
                n_activated_experts=activated,
                n_expert_groups=groups,
                n_limited_groups=limited,
                mtp_depth=i % 2,
                max_positions=128,
                **{name: column[i] for name, column in columns.items()},
            )
        )
    return made


def label(config: ModelConfig) -> str:
    """A test id that says what the configuration is."""
    parts = [
        f"{config.n_dense_layers}of{config.n_layers}dense",
        "q_full" if config.q_lora_rank is None else "q_lora",
        "rope" if config.yarn is None else f"yarn{config.yarn.factor:g}",
        f"E{config.n_routed_experts}K{config.n_activated_experts}G{config.n_expert_groups}L{config.n_limited_groups}",
        "tied" if config.tie_embeddings else "untied",
    ]
    return "-".join(parts)
