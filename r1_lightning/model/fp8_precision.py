"""FP8 as DeepSeek-V3 trains with it: which layers compute in FP8, and what does their products (V3 section 3.3).

In FP8 are the products of the MLA projections and of dense, shared and routed feed-forwards. Embedding, output head, router, norms
and the attention core stay as they are under `compute`. Weights are FP32 masters; names and shapes are those of `PlainPrecision`.
The `backend` does the products:

- **emulate**: bytes and scales of Transformer Engine on any device, products of what they stand for in FP32
  (`functional/fp8_products.py`): to study the numerics, not to be fast;
- **scaled_mm**: the same bytes, multiplied by torch's own FP8 kernels (`model/fp8_scaled_mm.py`);
- **te**: Transformer Engine's layers (`model/fp8_te.py`).

The last two need a GPU of compute capability 9.0 and have never run on one. Where they cannot be had they are refused, with the
reason; nothing takes their place. `auto` is the first of te, scaled_mm and emulate that can be had here.

A region of FP8 begins and ends in the layer's own forward: so it is inside whatever a block recomputes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from r1_lightning.functional import fp8_products
from r1_lightning.functional.fp8_products import Recipe
from r1_lightning.functional.fp8_tiles import BLOCK, Quantised
from r1_lightning.model import fp8_scaled_mm, fp8_te
from r1_lightning.model.precision import (
    AGREEMENT,
    FP8Layer,
    GroupedLinear,
    PlainPrecision,
    in_compute_type,
)
from r1_lightning.types.errors import require, require_choice

BACKENDS = ("auto", "emulate", "scaled_mm", "te")
CAPABILITY, CUDA = (9, 0), (12, 9)  # blocks of scales in the products: Hopper, and the first CUDA that has them


def reason_against(backend: str) -> str | None:
    """Return why `backend` cannot be had here, in a few words; None if it can."""
    if backend == "emulate":
        return None
    if not torch.cuda.is_available():
        return "torch finds no GPU here; precision=fp8_emulated gives the same bytes and scales"
    found, built = torch.cuda.get_device_capability(), tuple(map(int, (torch.version.cuda or "0.0").split(".")[:2]))
    if found < CAPABILITY or (backend == "scaled_mm" and found[0] != CAPABILITY[0]):
        return f"its products need compute capability 9.0, and this GPU has {found[0]}.{found[1]}"
    if built < CUDA:
        return f"it needs CUDA 12.9, and torch was built for {torch.version.cuda}"
    if backend == "te" and find_spec("transformer_engine") is None:
        return "Transformer Engine is not installed: pip install --no-build-isolation '.[fp8]'"
    return None


def backend_here() -> str:
    """Return the backend that `auto` is here."""
    return next(backend for backend in ("te", "scaled_mm", "emulate") if reason_against(backend) is None)


class FP8Precision:
    """FP8 for the layers that may have it, `PlainPrecision(compute)` for the rest.

    `power_of_two_scales` are Transformer Engine's default; DeepSeek's published weights have FP32 scales. `gradient_blocks` cuts
    the gradients that go back through a layer into blocks of 128 x 128 (V3 appendix B.2). With `rollouts_only` FP8 is for steps
    with a cache, and training and scoring compute in `compute`. Raises `InvalidInput` if a setting is unknown; a layer, if its
    backend cannot be had here.
    """

    static_shapes = False

    def __init__(
        self,
        backend: Literal["auto", "emulate", "scaled_mm", "te"] = "auto",
        compute: Literal["fp32", "bf16"] = "bf16",
        power_of_two_scales: bool = True,
        gradient_blocks: bool = False,
        rollouts_only: bool = False,
        compile: bool = False,
    ) -> None:
        require_choice("precision.backend", backend, BACKENDS)
        flags = {"power_of_two_scales": power_of_two_scales, "gradient_blocks": gradient_blocks}
        for name, value in {**flags, "rollouts_only": rollouts_only, "compile": compile}.items():
            require_choice(f"precision.{name}", value, (True, False))
        allowed = "how many tiles the experts' rows take depends on the routes, which no compiled graph can follow"
        require(not compile, "precision.compile", compile, allowed)
        self.plain = PlainPrecision(compute)
        self.backend: str = backend_here() if backend == "auto" else backend
        allowed = "only precision.backend=emulate multiplies two operands in blocks"
        require(self.backend == "emulate" or not gradient_blocks, "precision.gradient_blocks", gradient_blocks, allowed)
        self.compute: str = compute
        self.name = f"fp8_{self.backend}_{compute}" + "_fp32_scales" * (not power_of_two_scales)
        multiply = fp8_scaled_mm.multiply if self.backend == "scaled_mm" else fp8_products.multiply_dequantised
        self.recipe = Recipe(power_of_two_scales, gradient_blocks, multiply)
        self.rollouts_only = rollouts_only
        self.is_decoding = False
        bounds = AGREEMENT["fp8_rollouts" if rollouts_only else "fp8"]
        self.logprob_tolerance, self.mean_logprob_tolerance, self.max_flipped_fraction = bounds

    @property
    def is_on(self) -> bool:
        """True while layers compute in FP8."""
        return self.is_decoding or not self.rollouts_only

    def linear(self, in_features: int, out_features: int, fp8_eligible: bool) -> nn.Linear:
        if not fp8_eligible:
            return self.plain.linear(in_features, out_features, fp8_eligible)
        self._refuse()
        if self.backend == "te":
            layer: nn.Linear = fp8_te.make_linear(
                in_features, out_features, self
            )  # no nn.Linear, but all that we ask of one
            return layer
        return FP8Linear(in_features, out_features, self)

    def grouped_linear(self, n_groups: int, in_features: int, out_features: int, fp8_eligible: bool) -> nn.Module:
        if not fp8_eligible:
            return self.plain.grouped_linear(n_groups, in_features, out_features, fp8_eligible)
        self._refuse()
        if self.backend == "te":
            layer: nn.Module = fp8_te.make_grouped(n_groups, in_features, out_features, self)
            return layer
        return FP8GroupedLinear(n_groups, in_features, out_features, self)

    def _refuse(self) -> None:
        reason = reason_against(self.backend)
        require(reason is None, "precision.backend", self.backend, str(reason))

    def autocast(self, device_type: str) -> AbstractContextManager:
        return self.plain.autocast(device_type)

    @contextmanager
    def decoding(self, device_type: str) -> Iterator[None]:
        before, self.is_decoding = self.is_decoding, True
        try:
            with self.autocast(device_type):
                yield
        finally:
            self.is_decoding = before

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return function


class FP8Linear(nn.Linear, FP8Layer):
    """... x in to ... x out, with products of FP8 operands."""

    def __init__(self, in_features: int, out_features: int, precision: FP8Precision) -> None:
        super().__init__(in_features, out_features, bias=False)
        self.precision = precision

    def forward(self, x: Tensor) -> Tensor:
        if not self.precision.is_on:
            return F.linear(x, self.weight)
        x = in_compute_type(x)
        x_NI, recipe = x.reshape(-1, self.in_features), self.precision.recipe
        if torch.is_grad_enabled():
            y_NO = fp8_products.linear(x_NI, self.weight, recipe)
        else:
            y_NO = fp8_products.linear_by(x_NI, self.cut_weight(), recipe)
        return y_NO.view(*x.shape[:-1], self.out_features)


class FP8GroupedLinear(GroupedLinear, FP8Layer):
    """Rows sorted by expert, N x in to N x out, with products of FP8 operands."""

    def __init__(self, n_groups: int, in_features: int, out_features: int, precision: FP8Precision) -> None:
        super().__init__(n_groups, in_features, out_features)
        self.precision = precision

    def forward(self, x_ND: Tensor, ends_E: Tensor) -> Tensor:
        if not self.precision.is_on:
            return super().forward(x_ND, ends_E)
        x_ND, recipe = in_compute_type(x_ND), self.precision.recipe
        by_expert = self.precision.backend == "scaled_mm"
        if torch.is_grad_enabled():
            product = fp8_products.one_by_one if by_expert else fp8_products.grouped_linear
            return product(x_ND, self.weight, ends_E, recipe)
        if by_expert:
            return fp8_products.one_by_one_by(x_ND, self.once("experts", self._cut_experts), ends_E, recipe)
        return fp8_products.grouped_linear_by(x_ND, self.rounded_weight(), ends_E, recipe)

    def _cut_experts(self) -> list[Quantised]:
        return [self.precision.recipe.cut(weight.T.contiguous(), BLOCK) for weight in self.weight]
