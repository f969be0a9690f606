"""The backbone's shape: every number of the architecture, checked once, in DeepSeek-V3's own names.

Source: DeepSeek-V3 technical report section 2.1 and 4.2, and the names of its published inference code. HuggingFace's
names appear only in `model/hf_config.py`. The vocabulary size comes from the tokenizer, not from a YAML file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from r1_lightning.types.errors import InvalidInput, require, require_choice, require_int, require_number


@dataclass(frozen=True)
class YarnConfig:
    """YaRN context extension of the decoupled rotary part (V3 section 4.3; V2 section 3.1.4).

    `factor` is s; a dimension that turns more than `beta_fast` times over the original context keeps its frequency, one
    that turns less than `beta_slow` times has it divided by s. `mscale_all_dim` scales the softmax
    (0.1 * mscale_all_dim * ln s + 1, squared); `mscale / mscale_all_dim` scales the rotation itself (1 when equal).
    """

    factor: float = 40.0
    original_max_positions: int = 4096
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float = 1.0
    mscale_all_dim: float = 1.0

    def __post_init__(self) -> None:
        require_number("yarn.factor", self.factor, 1.0)
        require_int("yarn.original_max_positions", self.original_max_positions, 1)
        require_number("yarn.beta_slow", self.beta_slow, 0.0, open_minimum=True)
        require_number("yarn.beta_fast", self.beta_fast, self.beta_slow)
        require_number("yarn.mscale", self.mscale, 0.0)
        require_number("yarn.mscale_all_dim", self.mscale_all_dim, 0.0)


# Kinds of attention without settings of their own: MLA and lightning attention read the fields of `ModelConfig`.
NAMED_ATTENTION = ("mla", "lightning")
# Fields of MLA alone; 0 means that a field is not given.
MLA_FIELDS = ("q_lora_rank", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")


@runtime_checkable
class AttentionSettings(Protocol):
    """A kind of attention that `model.attention_kind` names by its `_target_`, as `ModelConfig` sees it.

    The whole interface is `model.attention.AttentionKind`. `is_recurrent` kinds keep a state of constant size, and some layers of
    the model keep MLA beside them. `check` raises `InvalidInput` if the settings do not fit the other fields of the `ModelConfig`.
    """

    @property
    def name(self) -> str: ...

    @property
    def is_recurrent(self) -> bool: ...

    def check(self, config: Any) -> None: ...


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Shape of a DeepSeek-V3-style backbone.

    Widths are in elements. `q_lora_rank=None` leaves the query uncompressed (V2-Lite). The first
    `n_dense_layers` blocks have a dense feed-forward of width `d_ff_dense`, the others a mixture of experts of width
    `d_ff_expert`. `n_expert_groups` and `n_limited_groups` are the node-limited routing of V3 section 2.1.2.
    `router_scoring` "sigmoid" is V3's router; "softmax" V2's (eq 20-22 there), whose gates are not normalised again and which has
    no expert biases. `balance_loss_alpha` weighs the sequence-wise balance loss (eq 17). `init_std` is 0.006 in V3; small models
    need a larger one.
    `attention_kind` is "mla", "lightning", or an object with settings of its own (`AttentionSettings`). A kind with a recurrent
    state (lightning) leaves MLA in every `softmax_attention_every`-th layer (MiniMax-01, arXiv:2501.08313: 8) and in MTP modules.
    Give the fields of MLA (`MLA_FIELDS`) if and only if a layer has MLA.
    """

    vocab_size: int
    d_model: int
    n_layers: int
    n_dense_layers: int
    n_heads: int
    q_lora_rank: int | None = 0
    kv_lora_rank: int = 0
    qk_nope_head_dim: int = 0
    qk_rope_head_dim: int = 0
    v_head_dim: int = 0
    d_ff_dense: int
    d_ff_expert: int
    n_routed_experts: int
    n_shared_experts: int
    n_activated_experts: int
    n_expert_groups: int = 1
    n_limited_groups: int = 1
    route_scale: float = 1.0
    balance_loss_alpha: float = 0.0001
    mtp_depth: int = 1
    max_positions: int = 4096
    rope_theta: float = 10000.0
    yarn: YarnConfig | None = None
    init_std: float = 0.006
    norm_eps: float = 1e-6
    tie_embeddings: bool = False
    router_scoring: str = "sigmoid"
    attention_kind: str | AttentionSettings = "mla"
    softmax_attention_every: int = 8
    library = "r1_lightning"  # what makes the network; no field

    def __post_init__(self) -> None:
        positive = (
            "vocab_size d_model n_layers n_heads d_ff_dense d_ff_expert n_routed_experts n_shared_experts "
            "n_activated_experts n_expert_groups n_limited_groups max_positions"
        )
        for name in positive.split():
            require_int(f"model.{name}", getattr(self, name), 1)
        require_int("model.n_dense_layers", self.n_dense_layers, 0, self.n_layers)
        require_int("model.mtp_depth", self.mtp_depth, 0)
        require_number("model.route_scale", self.route_scale, 0.0, open_minimum=True)
        require_number("model.balance_loss_alpha", self.balance_loss_alpha, 0.0)
        require_number("model.rope_theta", self.rope_theta, 1.0, open_minimum=True)
        require_number("model.init_std", self.init_std, 0.0, open_minimum=True)
        require_number("model.norm_eps", self.norm_eps, 0.0, open_minimum=True)
        require(isinstance(self.tie_embeddings, bool), "model.tie_embeddings", self.tie_embeddings, "true or false")
        yarn_allowed = "null, or a mapping with _target_: r1_lightning.model.config.YarnConfig"
        require(self.yarn is None or isinstance(self.yarn, YarnConfig), "model.yarn", self.yarn, yarn_allowed)
        require_choice("model.router_scoring", self.router_scoring, ("sigmoid", "softmax"))
        self._check_attention()
        self._check_experts()

    def _check_attention(self) -> None:
        kind = self.attention_kind
        if not isinstance(kind, AttentionSettings):
            require_choice("model.attention_kind", kind, NAMED_ATTENTION)
        most = self.n_layers if self.is_hybrid else None  # at least one layer keeps MLA
        require_int("model.softmax_attention_every", self.softmax_attention_every, 2, most)
        if isinstance(kind, str) or kind.is_recurrent:
            self._check_mla()
        else:
            for name in MLA_FIELDS:
                allowed = f"no layer has MLA where model.attention_kind is {kind.name}"
                require(getattr(self, name) == 0, f"model.{name}", getattr(self, name), allowed)
        if not isinstance(kind, str):
            kind.check(self)

    def _check_mla(self) -> None:
        for name in ("kv_lora_rank", "qk_nope_head_dim", "v_head_dim"):
            require_int(f"model.{name}", getattr(self, name), 1)
        if self.q_lora_rank is not None:
            require_int("model.q_lora_rank", self.q_lora_rank, 1)
        require_int("model.qk_rope_head_dim", self.qk_rope_head_dim, 2)
        require(self.qk_rope_head_dim % 2 == 0, "model.qk_rope_head_dim", self.qk_rope_head_dim, "it must be even")

    def _check_experts(self) -> None:
        experts, groups = self.n_routed_experts, self.n_expert_groups
        if experts % groups:
            raise InvalidInput(
                f"model.n_expert_groups={groups} is not allowed: it must divide n_routed_experts={experts}"
            )
        by_groups = self.router_scoring == "softmax" and groups > 1
        require(not by_groups, "model.n_expert_groups", groups, "V2's choice by groups is not built: it must be 1")
        require_int("model.n_limited_groups", self.n_limited_groups, 1, groups)
        if groups > 1:  # a group's score is the sum of its best two
            require_int("model.n_routed_experts / n_expert_groups", experts // groups, 2)
        require_int(
            "model.n_activated_experts", self.n_activated_experts, 1, self.n_limited_groups * (experts // groups)
        )
        for name in ("d_model", "d_ff_expert"):  # grouped matrix products need rows of 16 bytes: 8 elements of BF16
            width = getattr(self, name)
            require(width % 8 == 0, f"model.{name}", width, "it must be a multiple of 8")

    @property
    def is_hybrid(self) -> bool:
        """True if most layers of the trunk have a recurrent kind of attention, and the others MLA."""
        kind = self.attention_kind
        return kind == "lightning" if isinstance(kind, str) else kind.is_recurrent

    @property
    def attention_kinds(self) -> tuple[str | AttentionSettings, ...]:
        """The attention of each layer of the trunk, as configured; `model.attention.layer_kinds` returns the kinds themselves."""
        every = self.softmax_attention_every if self.is_hybrid else self.n_layers + 1
        return tuple("mla" if i % every == 0 else self.attention_kind for i in range(1, self.n_layers + 1))

    @property
    def mtp_attention_kind(self) -> str | AttentionSettings:
        """The attention of the MTP modules: that of the trunk, or MLA in a hybrid."""
        return "mla" if self.is_hybrid else self.attention_kind

    @property
    def lightning_head_dim(self) -> int:
        """Width of a lightning head's query, key and value: that of MLA's values, so that W^O has one shape in both kinds."""
        return self.v_head_dim

    @property
    def qk_head_dim(self) -> int:
        return self.qk_nope_head_dim + self.qk_rope_head_dim

    @property
    def cache_width(self) -> int:
        """Elements cached per token and MLA layer: the latent and the shared rotary key (V2 Table 1: d_c + d_h^R)."""
        return self.kv_lora_rank + self.qk_rope_head_dim
