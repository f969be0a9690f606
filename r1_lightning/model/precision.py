"""Precision backends: they make every linear layer of the backbone and decide in which type it computes.

DeepSeek-V3 (section 3.3) runs the GEMMs of the MLA projections and of dense, shared and routed feed-forwards in FP8, and
keeps embedding, output head, router, norms and the attention core in higher precision. So the model asks for each layer
with `fp8_eligible`, and the backend decides once, at construction. `PlainPrecision` is the backend for FP32 and BF16: it
keeps FP32 master weights and leaves the compute type to autocast. FP8 has backends of its own (`model/fp8_precision.py`), whose
layers have the same names and shapes of weights, so that a checkpoint fits all of them.

The backend also decides whether the numerical core is compiled (torch.compile): `compiled` wraps the functions that do the
work of a block and of a decoding step, and the experts of a CPU then choose what is fastest in a graph (`model/experts.py`).

Sampling and training compute the same log-probs in another order, so they agree only to within rounding. The tolerance depends
on the compute type, so it is defined here, for the self-check.
"""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal, Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from r1_lightning.functional.fp8_products import rounded, rounded_experts
from r1_lightning.functional.fp8_tiles import BLOCK, ROW_TILE, Reused
from r1_lightning.model.grouped_product import grouped_product
from r1_lightning.types.errors import require, require_choice

FP32, BF16 = 4, 2  # bytes of a number
T = TypeVar("T")


def compute_type(device_type: str) -> torch.dtype:
    """Return the type in which matrix products of FP32 weights run now: autocast's, or FP32."""
    return torch.get_autocast_dtype(device_type) if torch.is_autocast_enabled(device_type) else torch.float32


def in_compute_type(x: Tensor) -> Tensor:
    """Return `x` in the type of matrix products: autocast does this for `nn.Linear`, but not for our own products."""
    return x.to(compute_type(x.device.type)) if torch.is_autocast_enabled(x.device.type) else x


class GroupedLinear(nn.Module):
    """E independent linear maps applied to rows sorted by expert; no Python loop over experts.

    weight E x in x out. `forward(x, ends)` takes x N x in with the rows of expert e at ends[e-1]:ends[e] and returns
    N x out. `ends` is int32, the running total of rows per expert.
    """

    def __init__(self, n_groups: int, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_groups, in_features, out_features))

    def forward(self, x_ND: Tensor, ends_E: Tensor) -> Tensor:
        weight = in_compute_type(self.weight)
        if torch.compiler.is_compiling() and x_ND.device.type == "cpu":
            return grouped_product(x_ND.to(weight.dtype), weight, ends_E)
        return F.grouped_mm(x_ND.to(weight.dtype), weight, offs=ends_E)


class FP8Layer(nn.Module):
    """What a layer that multiplies in FP8 has beside its product: the numbers that its operands become there.

    It takes its weight from the FP32 numbers, which a cast to BF16 before would change. `precision` is the `FP8Precision` that made
    it. Where `unchanged_weights` promises that the weight stays as it is, `kept` holds what was computed from it.
    """

    precision: Any
    kept: dict[str, Any] | None = None

    def once(self, name: str, compute: Callable[[], T]) -> T:
        """Return `compute()`, which depends on the weight alone: computed once where the weight stays as it is."""
        if self.kept is None:
            return compute()
        if name not in self.kept:
            self.kept[name] = compute()
        found: T = self.kept[name]
        return found

    def rounded_weight(self) -> Tensor:
        """Return the weight in FP8 and back, in FP32; as it is while FP8 is off."""
        weight = self.get_parameter("weight")
        if not self.precision.is_on:
            return weight
        if weight.dim() == 2:
            return self.cut_weight().dequantise()
        return self.once("rounded", lambda: rounded_experts(weight, self.precision.recipe))

    def cut_weight(self) -> Reused:
        """Return the weight of a linear layer in FP8."""
        return self.once("cut", lambda: Reused.of(self.precision.recipe.cut(self.get_parameter("weight"), BLOCK)))

    def rounded_input(self, x: Tensor) -> Tensor:
        """Return an input ... x in, in FP8 and back, in its own type; as it is while FP8 is off."""
        if not self.precision.is_on:
            return x
        return rounded(x.reshape(-1, x.shape[-1]), ROW_TILE, self.precision.recipe).to(x.dtype).view_as(x)


@contextmanager
def unchanged_weights(module: nn.Module) -> Iterator[None]:
    """Promise that no weight of `module` changes inside the block: layers in FP8 then cut theirs into blocks once."""
    layers = [part for part in module.modules() if isinstance(part, FP8Layer) and part.kept is None]
    for layer in layers:
        layer.kept = {}
    try:
        yield
    finally:
        for layer in layers:
            layer.kept = None


def multiplied_weight(layer: nn.Linear) -> Tensor:
    """Return the weight as `layer` multiplies it, in the compute type: for who multiplies by it outside of the layer."""
    return in_compute_type(layer.rounded_weight() if isinstance(layer, FP8Layer) else layer.weight)


def multiplied_input(layer: nn.Linear, x: Tensor) -> Tensor:
    """Return `x` as `layer` multiplies it."""
    return layer.rounded_input(x) if isinstance(layer, FP8Layer) else x


def weights_cast_by_autocast(module: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of linear layers, which autocast casts in every forward.

    Embeddings, tied heads too, are left out, and layers that multiply in FP8.
    """
    embedded = {id(p) for part in module.modules() if isinstance(part, nn.Embedding) for p in part.parameters()}
    linear = (part for part in module.modules() if isinstance(part, (nn.Linear, GroupedLinear)))
    products = (part for part in linear if not isinstance(part, FP8Layer))
    return [p for part in products for p in part.parameters(recurse=False) if id(p) not in embedded]


# Per compute type: the largest and the mean difference of log-probs (nats) allowed between sampler and training forward, and the
# allowed share of tokens routed to other experts. Measured with configs/model/tiny after 60 steps of pre-training, three seeds of
# about 2,300 tokens each: FP32 differs by at most 5e-6 and flips no expert; BF16 differs by at most 0.066 and flips 0.8 to 1.3 % of
# its tokens, so flips are no fault there. A model whose weights are all off by 1e-3 differs by 0.45 and more. The largest of a deep
# model's differences is rounding, too: SmolLM2's 30 layers in BF16 differ by 0.03 on average and 0.25 at most over 962 tokens, and
# by 0.035 and 0.34 between `generate` and forward of transformers. In FP8 a last bit of BF16 can become a
# step of 6 %. On 512 completions before and after 100 steps of RL, three seeds (reports/fp8_in_rl), differed at most and on average
# BF16 by 0.18 and 0.002, FP8 by 0.81 and 0.012, an update in BF16 from rollouts in FP8 by 1.9 and 0.020; the last two routed up to
# 9 % and 13 % of the tokens to other experts.
AGREEMENT = {
    "fp32": (1e-4, 1e-4, 1e-3),
    "bf16": (1.0, 0.08, 1.0),
    "fp8": (2.0, 0.08, 1.0),
    "fp8_rollouts": (4.0, 0.08, 1.0),
}


# torch.compile makes one variant for every combination of constants: dense block or mixture, with or without gradients,
# trained weights or a frozen reference, replayed routes or none. By default torch stops at 8.
MOST_VARIANTS = 32


@functools.cache
def compiled_once(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function` compiled for varying sizes; all layers and all copies of a model share the compiled code."""
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, MOST_VARIANTS)
    return torch.compile(function, dynamic=True, fullgraph=True)


def has_compiler() -> bool:
    """True if there is a C++ compiler, which torch.compile needs on a CPU (and to launch kernels on a GPU)."""
    return any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "g++", "clang++"))


class Precision(Protocol):
    """A backend that makes linear layers and decides in which type they compute.

    `compute` names the type of the products that are not in FP8, and `name` the whole way of computing: log-probs of two names
    differ. `logprob_tolerance` and `mean_logprob_tolerance` (nats), for the largest difference and the mean, and
    `max_flipped_fraction` (0..1) bound the differences between sampler and training forward. `static_shapes` is true if shapes must
    not depend on data.
    """

    @property
    def compute(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def logprob_tolerance(self) -> float: ...

    @property
    def mean_logprob_tolerance(self) -> float: ...

    @property
    def max_flipped_fraction(self) -> float: ...

    @property
    def static_shapes(self) -> bool: ...

    def linear(self, in_features: int, out_features: int, fp8_eligible: bool) -> nn.Linear: ...

    def grouped_linear(self, n_groups: int, in_features: int, out_features: int, fp8_eligible: bool) -> nn.Module: ...

    def autocast(self, device_type: str) -> AbstractContextManager: ...

    def decoding(self, device_type: str) -> AbstractContextManager:
        """`autocast` for steps with a cache, which sample."""
        ...

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return `function` as it is, or compiled; it must be a plain function that takes its module as an argument."""
        ...


class PlainPrecision:
    """FP32 weights; `compute` is the type of matrix products: "fp32", or "bf16" through autocast.

    `decode="fp32"` samples in FP32 beside training in BF16: on a CPU the native decoder (`rollout/native_sampler.py`) is faster
    than steps in BF16. `compile` runs blocks, decoding steps and log-probs through torch.compile: it starts slowly (about a minute
    on two cores, less if torch finds its cache) and then runs faster. Raises `InvalidInput` if there is no C++ compiler.
    """

    def __init__(
        self, compute: Literal["fp32", "bf16"] = "fp32", compile: bool = False, decode: Literal["fp32"] | None = None
    ) -> None:
        require_choice("precision.compute", compute, ("fp32", "bf16"))
        require_choice("precision.decode", decode, (None, "fp32"))
        require_choice("precision.compile", compile, (True, False))
        require(not compile or has_compiler(), "precision.compile", compile, "it needs a C++ compiler (g++ or clang++)")
        self.compute: str = compute
        self.decode: str = decode or compute
        self.name: str = compute
        self.static_shapes = compile
        self.logprob_tolerance, self.mean_logprob_tolerance, self.max_flipped_fraction = AGREEMENT[compute]

    def linear(self, in_features: int, out_features: int, fp8_eligible: bool) -> nn.Linear:
        return nn.Linear(in_features, out_features, bias=False)

    def grouped_linear(self, n_groups: int, in_features: int, out_features: int, fp8_eligible: bool) -> nn.Module:
        return GroupedLinear(n_groups, in_features, out_features)

    def autocast(self, device_type: str) -> AbstractContextManager:
        return torch.autocast(device_type, dtype=torch.bfloat16, enabled=self.compute == "bf16")

    def decoding(self, device_type: str) -> AbstractContextManager:
        return torch.autocast(device_type, dtype=torch.bfloat16, enabled=self.decode == "bf16")

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return compiled_once(function) if self.static_shapes else function
