"""What a network costs, whoever makes it: our own backbone by the formulas of `model/cost.py`, `transformers`' by rehearsal.

Both are on the meta device, without memory. Each answers the same questions, so that what counts a stage asks no further.
"""

from __future__ import annotations

from typing import Any, Protocol

from r1_lightning.model import cost, fp8_cost, hf_cost
from r1_lightning.model.attention import layer_kinds
from r1_lightning.model.cost import MicroBatch, Parameters
from r1_lightning.model.hf_cost import Kept
from r1_lightning.model.hf_model import HFBackbone
from r1_lightning.model.precision import BF16, FP32
from r1_lightning.run.cost.load import StepLoad


class Network(Protocol):
    """Bytes and FLOPs of a network on one device. Cached bytes are called by the name that its attention gives them."""

    backbone: Any
    device_type: str
    cache_name: str
    vocab_size: int
    is_fused: bool
    n_layers: int

    def parameters(self) -> Parameters: ...

    def kept(self, batch: MicroBatch) -> Kept:
        """Return what a training forward keeps for the backward, logits apart."""

    def passing(self, batch: MicroBatch) -> int:
        """Bytes alive at once in a forward without gradients."""

    def converted(self, with_mtp: bool, is_decoding: bool = False) -> int:
        """Bytes of the weights' copies in the compute type, without those that the other counts hold already."""

    def held(self, with_mtp: bool) -> int:
        """Bytes that sampling holds of weights in FP8."""

    def cache(self, rows: int, tokens: int) -> int: ...

    def decoding(self, rows: int, tokens: int) -> int:
        """Bytes alive at once in a decoding step, beside the cache."""

    def prefill(self, prompts: int, tokens: int) -> int: ...

    def forward_flops(self, load: StepLoad, mtp_depth: int = 0) -> float: ...

    def sampling_flops(self, load: StepLoad, new_tokens: float) -> float: ...


class OwnNetwork:
    """Our own backbone."""

    def __init__(self, backbone: Any, device_type: str) -> None:
        self.backbone, self.config, self.device_type = backbone, backbone.config, device_type
        self.vocab_size = self.config.vocab_size
        self.n_layers = self.config.n_layers
        self.number = number_of(backbone)
        # Compiled for the CPU, attention keeps its weights (`model.mla.spelled_out_attention`).
        spelled_out = device_type == "cpu" and backbone.precision.static_shapes
        self.is_fused = not spelled_out and cost.is_attention_fused(self.config, device_type)

    @property
    def cache_name(self) -> str:
        names = {getattr(kind, "cache_name", "cache") for kind in layer_kinds(self.config) if not kind.is_recurrent}
        return next(iter(names), "state") if len(names) < 2 else "cache"

    def parameters(self) -> Parameters:
        return cost.count_parameters(self.backbone)

    def kept(self, batch: MicroBatch) -> Kept:
        total = cost.activation_bytes(self.config, batch, self.number, self.is_fused)
        block, blocks = cost.block_bytes(self.config, batch, self.number, self.is_fused)
        if self.number == BF16:
            fp8 = fp8_cost.kept_differences(self.backbone, batch, self.is_fused)
            total, block, blocks = total + sum(fp8), block + max(fp8), blocks + sum(fp8)
        inputs = (self.config.n_layers + batch.mtp_depth) * batch.rows * batch.row_tokens * self.config.d_model * FP32
        return Kept(total, block, blocks, inputs)

    def passing(self, batch: MicroBatch) -> int:
        return cost.inference_bytes(self.config, batch, self.number, self.is_fused)

    def converted(self, with_mtp: bool, is_decoding: bool = False) -> int:
        return cost.converted_weight_bytes(self.backbone, self.number, with_mtp, is_decoding)

    def held(self, with_mtp: bool) -> int:
        return fp8_cost.held_weight_bytes(self.backbone, with_mtp)

    def cache(self, rows: int, tokens: int) -> int:
        return int(self.backbone.new_cache(rows, tokens).bytes)

    def decoding(self, rows: int, tokens: int) -> int:
        return 0

    def prefill(self, prompts: int, tokens: int) -> int:
        return cost.prefill_bytes(self.config, prompts, tokens, self.number)

    def forward_flops(self, load: StepLoad, mtp_depth: int = 0) -> float:
        size = (load.tokens, load.targets, load.context)
        return cost.forward_flops(self.config, self.parameters(), *size, mtp_depth)

    def sampling_flops(self, load: StepLoad, new_tokens: float) -> float:
        size = (load.prompts, load.group_size, load.prompt_tokens, new_tokens)
        return cost.sampling_flops(self.config, self.parameters(), *size)


class TransformersNetwork:
    """A model of `transformers`, dense or with experts, with or without adapters."""

    cache_name = "key-value cache"
    is_fused = True

    def __init__(self, backbone: HFBackbone, device_type: str) -> None:
        self.backbone, self.device_type = backbone, device_type
        self.vocab_size = int(backbone.head.weight.shape[0])
        self.n_layers = int(backbone.model.config.num_hidden_layers)

    def parameters(self) -> Parameters:
        return hf_cost.count_parameters(self.backbone)

    def kept(self, batch: MicroBatch) -> Kept:
        kept = hf_cost.kept_bytes(self.backbone, batch.rows, batch.row_tokens, self.device_type)
        heads = batch.targets * int(self.backbone.head.weight.shape[1]) * FP32  # the hidden states that meet the head
        return kept._replace(total=kept.total + heads)

    def passing(self, batch: MicroBatch) -> int:
        return hf_cost.passing_bytes(self.backbone, batch.rows, batch.row_tokens, self.device_type)

    def held(self, with_mtp: bool) -> int:
        return 0

    def converted(self, with_mtp: bool, is_decoding: bool = False) -> int:
        return hf_cost.converted_weight_bytes(self.backbone, is_decoding)

    def cache(self, rows: int, tokens: int) -> int:
        return hf_cost.cache_bytes(self.backbone, rows, tokens)

    def decoding(self, rows: int, tokens: int) -> int:
        """One layer's cache is copied when it grows, and its heads are repeated for those of the queries."""
        return hf_cost.decoding_bytes(self.backbone, rows, tokens) - self.cache(rows, tokens)

    def prefill(self, prompts: int, tokens: int) -> int:
        return hf_cost.prefill_bytes(self.backbone, prompts, tokens) - self.cache(prompts, tokens)

    def forward_flops(self, load: StepLoad, mtp_depth: int = 0) -> float:
        counts = self.parameters()
        products = load.context * hf_cost.attention_products(self.backbone)
        body = load.tokens * (counts.activated - counts.head + products)
        return cost.FORWARD_FLOPS * (body + load.targets * counts.head)

    def sampling_flops(self, load: StepLoad, new_tokens: float) -> float:
        counts, products = self.parameters(), hf_cost.attention_products(self.backbone)
        read = load.prompts * load.prompt_tokens
        drawn = load.prompts * load.group_size * new_tokens
        reading = read * (counts.activated - counts.head + products * load.prompt_tokens / 2)
        seen = load.prompt_tokens + new_tokens / 2
        return cost.FORWARD_FLOPS * (reading + drawn * (counts.activated + products * seen))


def network_of(backbone: Any, device_type: str) -> Network:
    """Return what counts `backbone`."""
    kind: Any = TransformersNetwork if isinstance(backbone, HFBackbone) else OwnNetwork
    network: Network = kind(backbone, device_type)
    return network


def number_of(backbone: Any) -> int:
    """Bytes per element of the compute type."""
    return BF16 if getattr(backbone.precision, "compute", "fp32") == "bf16" else FP32
