"""FP8 layers of Transformer Engine (2.20): the only file that imports it, and only when a layer is made. **Never run on a GPU.**

It needs CUDA 12.9, a GPU of compute capability 9.0 and the extra `fp8` (`pip install --no-build-isolation '.[fp8]'`); importing it
without a driver is of no use, so `model/fp8_precision.py` asks for the GPU first. The recipe is `Float8BlockScaling`, DeepSeek's:
E4M3 everywhere, 1 x 128 for activations and gradients, 128 x 128 for weights. What its layers do otherwise, and ours do not:

- they save a key `_extra_state`, which breaks strict loading; the block recipe has no state, so the key is taken away;
- they want rows in multiples of 8, of 16 for the weight gradient: rows are filled up with zeros, which change nothing;
- experts have a parameter each, and one named `weight` stands for all of them; ours is one matrix per expert in a single parameter,
  so that a checkpoint fits every backend: it stands beside the layer, which is lent its experts' matrices for the time of a call;
- only the word "meta" as a device makes no numbers; `torch.device("meta")` is moved to the GPU;
- `use_f32_scales` does nothing: scales that are no powers of two are asked for in each `QParams`.

FP8 begins and ends in `forward`, so it is inside whatever a block computes again. Parameters are FP32 and are quantised from FP32.
The weight gradient leaves the product in BF16, unless `main_grad` takes it: there our own backends are finer.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from r1_lightning.functional.fp8_products import Recipe
from r1_lightning.model.precision import FP8Layer, in_compute_type
from r1_lightning.types.errors import require

ROWS, FEATURES = 16, 16  # rows and widths come in multiples of these


def block_recipe(recipe: Recipe) -> Any:
    """Return Transformer Engine's recipe for ours."""
    from transformer_engine.common.recipe import Float8BlockScaling, QParams

    made = Float8BlockScaling()
    for name in ("fp8_quant_fwd_inp", "fp8_quant_fwd_weight", "fp8_quant_bwd_grad"):
        setattr(made, name, QParams(power_2_scale=recipe.power_of_two))
    return made


def make_linear(in_features: int, out_features: int, precision: Any) -> Any:
    """A layer of ... x in to ... x out; weight out x in, FP32."""
    _check_widths(in_features, out_features)
    return _layers()[0](in_features, out_features, precision)


def make_grouped(n_groups: int, in_features: int, out_features: int, precision: Any) -> Any:
    """A layer for rows sorted by expert; weight E x in x out, FP32."""
    _check_widths(in_features, out_features)
    return _layers()[1](n_groups, in_features, out_features, precision)


def _check_widths(*widths: int) -> None:
    for width in widths:
        allowed = f"Transformer Engine multiplies widths in multiples of {FEATURES}; a layer of this model has {width}"
        require(width % FEATURES == 0, "precision.backend", "te", allowed)


@functools.cache
def _layers() -> tuple[type, type]:
    """Return the two classes of layers; importing Transformer Engine before `torch` fails, and here it comes after."""
    import transformer_engine.pytorch as te

    settings: dict[str, Any] = {
        "bias": False,
        "params_dtype": torch.float32,
        "init_method": functools.partial(nn.init.kaiming_uniform_, a=5**0.5),  # as nn.Linear
    }

    class Linear(te.Linear, FP8Layer):
        get_extra_state, set_extra_state = nn.Module.get_extra_state, nn.Module.set_extra_state

        def __init__(self, in_features: int, out_features: int, precision: Any) -> None:
            super().__init__(in_features, out_features, device=str(torch.get_default_device()), **settings)
            self.precision, self.recipe = precision, block_recipe(precision.recipe)

        def forward(self, x: Tensor) -> Tensor:
            x = in_compute_type(x)
            rows = x.reshape(-1, x.shape[-1])
            with te.autocast(enabled=self.precision.is_on, recipe=self.recipe):
                y = super().forward(F.pad(rows, (0, 0, 0, -len(rows) % ROWS)))
            return y[: len(rows)].reshape(*x.shape[:-1], -1)

    class Products(te.GroupedLinear):
        """The products of E experts, without parameters."""

        get_extra_state, set_extra_state = nn.Module.get_extra_state, nn.Module.set_extra_state

        def __init__(self, n_groups: int, in_features: int, out_features: int) -> None:
            super().__init__(n_groups, in_features, out_features, device="meta", **settings)
            self._parameters.clear()

    class Grouped(FP8Layer):
        def __init__(self, n_groups: int, in_features: int, out_features: int, precision: Any) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.empty(n_groups, in_features, out_features))
            self.precision, self.recipe = precision, block_recipe(precision.recipe)
            self.products = Products(n_groups, in_features, out_features)
            self.fill, self.cut = te.Fp8Padding(n_groups, ROWS), te.Fp8Unpadding(n_groups, ROWS)

        def forward(self, x_ND: Tensor, ends_E: Tensor) -> Tensor:
            counts = ends_E.diff(prepend=ends_E.new_zeros(1)).tolist()
            filled, rows = self.fill(in_compute_type(x_ND), counts)
            with _lent(self.products, self.weight), te.autocast(enabled=self.precision.is_on, recipe=self.recipe):
                y = self.products(filled, rows)
            return self.cut(y, counts)

    return Linear, Grouped


@contextmanager
def _lent(products: nn.Module, weight_EIO: Tensor) -> Iterator[None]:
    """Give the layer its experts' weights, out x in, under the names that it asks for, and biases that are none."""
    weights = weight_EIO.transpose(1, 2).contiguous().unbind()
    lent = {f"weight{expert}": weight for expert, weight in enumerate(weights)}
    lent |= {f"bias{expert}": weight_EIO.new_empty(0) for expert in range(len(weights))}
    products.__dict__.update(lent)
    try:
        yield
    finally:
        for name in lent:
            del products.__dict__[name]
