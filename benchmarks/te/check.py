"""Do our calls, names and values fit the installed Transformer Engine? All that a machine without a GPU can show of it.

Its classes are read (`inspect`), its recipe and quantisers are made, and so are our layers, with `torch.cuda.is_available` saying
that there is a GPU: making layers asks for no more. What its kernels do is emulated; `UNSEEN` lists what that leaves open.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch

from benchmarks.gpu import fp8_bits
from benchmarks.te import computed, layers
from benchmarks.te.calls import PACKAGE, Call, calls_made
from benchmarks.te.layers import Differs, same
from r1_lightning.functional.fp8_products import Recipe
from r1_lightning.model import fp8_precision, fp8_te

HOLDS, FAILS, OPEN = "holds", "does not hold", "cannot be seen here"


@dataclass(frozen=True)
class Row:
    """Something that `model/fp8_te.py` relies on, the verdict, and what was seen."""

    what: str
    verdict: str
    seen: str


def rows() -> list[Row]:
    """Check everything, in the order of `titles`."""
    calls = calls_made()
    fp8_te._layers.cache_clear()
    with _a_gpu_said_to_be_there():
        found = [_row(str(call), functools.partial(bound, call)) for call in calls]
        found += [_row(what, check) for what, check in CHECKS.items()]
    fp8_te._layers.cache_clear()
    return found + [Row(what, OPEN, why) for what, why in UNSEEN.items()]


def titles() -> list[str]:
    """What `rows` says something of, without Transformer Engine."""
    return [*map(str, calls_made()), *CHECKS, *UNSEEN]


def _row(what: str, check: Callable[[], str]) -> Row:
    try:
        return Row(what, HOLDS, check())
    except Exception as error:  # whatever it is, this does not hold, and the other rows still have something to say
        first = (str(error).splitlines() or [""])[0]
        return Row(what, FAILS, first if isinstance(error, Differs) else f"{type(error).__name__}: {first}")


@contextmanager
def _a_gpu_said_to_be_there() -> Iterator[None]:
    with (
        mock.patch.object(torch.cuda, "is_available", lambda: True),
        mock.patch.object(fp8_precision, "reason_against", lambda backend: None),
    ):
        yield


# --------------------------------------------------------------------------------------------------------------- calls


def bound(call: Call) -> str:
    """Bind the call to the real signature: every argument under the name that we mean, none in `*args` or `**kwargs`."""
    owner, method = real(call.target)
    is_made = method == "__init__"  # asked of the class: `__init__` of some takes anything, and the class knows better
    signature = inspect.signature(owner if is_made else getattr(owner, method))
    place = [] if is_made else [object()]
    arguments = signature.bind(*place, *(object() for _ in call.meant), **dict.fromkeys(call.named)).arguments
    names = list(signature.parameters)[len(place) :]
    same("the order of arguments", tuple(names[: len(call.meant)]), call.meant)
    unknown = [name for name in call.named if name not in arguments]
    same("what no argument has the name of", unknown, [])
    used = [f"{parameter}" for name, parameter in signature.parameters.items() if name in (*call.meant, *call.named)]
    return f"of {len(names)}: {', '.join(used) or 'none is given'}"


def real(target: str) -> tuple[Any, str]:
    """The class in the package, and the method, of a name such as "pytorch.Linear.forward"."""
    module, name, method = target.rsplit(".", 2)
    return getattr(importlib.import_module(f"{PACKAGE}.{module}"), name), method


# ------------------------------------------------------------------------------------------------- recipe, quantisers


def recipe_values() -> str:
    """The recipe as DeepSeek trains, with our scales in the fields that the package has for them."""
    from transformer_engine.common.recipe import Float8BlockScaling, Format, QParams

    for power_of_two in (True, False):
        made = fp8_te.block_recipe(Recipe(power_of_two))
        same("its class", type(made), Float8BlockScaling)
        same("its format", made.fp8_format, Format.E4M3)
        dims = (made.x_block_scaling_dim, made.w_block_scaling_dim, made.grad_block_scaling_dim)
        same("the dimensions of tiles", dims, (1, 2, 1))
        for name in ("fp8_quant_fwd_inp", "fp8_quant_fwd_weight", "fp8_quant_bwd_grad"):
            if not hasattr(Float8BlockScaling, name):
                raise Differs(f"it has no {name}")
            same(name, getattr(made, name), QParams(power_2_scale=power_of_two, amax_epsilon=0.0))
        products = (made.fp8_gemm_fprop, made.fp8_gemm_dgrad, made.fp8_gemm_wgrad)
        same("split accumulation", [product.use_split_accumulator for product in products], [True] * 3)
        same("backward_override", made.backward_override, None)
    fields = ", ".join(field.name for field in dataclasses.fields(QParams))
    return f"E4M3, tiles of dimension 1, 2, 1, amax_epsilon 0, split accumulation; fields of QParams: {fields}"


def quantisers() -> str:
    """What reaches the quantisers of a layer: the scales that we ask for, in tiles of 128."""
    from transformer_engine.pytorch.quantization import RecipeState

    for power_of_two in (True, False):
        recipe = fp8_te.block_recipe(Recipe(power_of_two))
        for mode, wanted in (("forward", [1, 2]), ("backward", [1])):
            state = RecipeState.create(recipe, mode=mode, num_quantizers=len(wanted), device=torch.device("cpu"))
            made = state.make_quantizers()
            same(f"dimensions of {mode}", [one.block_scaling_dim for one in made], wanted)
            same("powers of two", {one.force_pow_2_scales for one in made}, {power_of_two})
            same("epsilon and tile", {(one.amax_epsilon, one.block_len) for one in made}, {(0.0, 128)})
    return f"{type(made[0]).__name__}: forward x 1, weight 2, backward 1, tiles of 128, powers of two or not, as asked"


def layout() -> str:
    """Bytes and scales stand where `benchmarks/gpu/fp8_bits.py` reads them, those of a matrix of 130 x 272."""
    from transformer_engine.pytorch.tensor.storage.float8_blockwise_tensor_storage import Float8BlockwiseQTensorStorage

    for dimensions, wanted in ((1, [(3, 132), (2, 272)]), (2, [(2, 4), (3, 4)])):
        made = fp8_bits.quantiser_of(dimensions, True)
        shapes = [tuple(made.get_scale_shape((130, 272), lying)) for lying in (False, True)]
        same(f"shapes of scales, dimension {dimensions},", shapes, wanted)
    names = {"_rowwise_data", "_columnwise_data", "_rowwise_scale_inv", "_columnwise_scale_inv"}
    same("names that are not there", sorted(names - set(Float8BlockwiseQTensorStorage.__annotations__)), [])
    return "scales 3 x 132 and 2 x 272 of tiles, 2 x 4 and 3 x 4 of blocks"


CHECKS: dict[str, Callable[[], str]] = {
    "the recipe is DeepSeek's, with the scales that we ask for": recipe_values,
    "the quantisers have the recipe's scales and tiles": quantisers,
    "bytes and scales are laid out as `gpu_check` reads them": layout,
    "layers have the keys, shapes and types of `fp8_emulated` and load both ways, strictly": layers.layers_state,
    "so does a model with MLA, dense and mixture blocks and MTP": layers.model_state,
    "layers can be made without numbers": layers.without_numbers,
    "names that our layers add are free": layers.free_names,
    "experts' weights are found where they are lent, and have gradients": layers.lent_weights,
    "layers can be copied": layers.copies,
    "in FP8 by its Python, with emulated kernels, y, dx and dw of both layers are `fp8_emulated`'s": computed.layers_compute,
    "so are the gradients of that model, with recomputed blocks": computed.model_computes,
}
NO_GPU = "needs a GPU; `python scripts/gpu_check.py --only"
UNSEEN: dict[str, str] = {
    "bytes and scales that its kernels make": f"{NO_GPU} fp8_bits` compares them",
    "products of its kernels, padding, BF16 under CUDA's autocast": f"{NO_GPU} fp8_products` compares them",
    "speed and memory": f"{NO_GPU} fp8_speed` measures them",
    "several GPUs": "needs them; nothing of ours measures FP8 there yet",
}
