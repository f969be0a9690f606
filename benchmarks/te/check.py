"""Do our calls, names and values fit the installed Transformer Engine? All that a machine without a GPU can show of it.

Its classes are read (`inspect`), its recipe and quantisers are made, and so are our layers, with `torch.cuda.is_available` saying
that there is a GPU: making layers asks for no more. Nothing is computed by its kernels; `UNSEEN` lists what that leaves open.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from benchmarks.te.calls import PACKAGE, Call, calls_made
from r1_lightning.functional.fp8_products import Recipe
from r1_lightning.model import fp8_precision, fp8_te
from r1_lightning.model.backbone import DeepSeekBackbone
from r1_lightning.model.config import ModelConfig
from r1_lightning.model.fp8_precision import FP8Precision
from r1_lightning.model.precision import FP8Layer

HOLDS, FAILS, OPEN = "holds", "does not hold", "cannot be seen here"
EXPERTS, WIDE, NARROW = 3, 32, 16


@dataclass(frozen=True)
class Row:
    """Something that `model/fp8_te.py` relies on, the verdict, and what was seen."""

    what: str
    verdict: str
    seen: str


class Differs(Exception):
    """The package is otherwise than our code takes it to be."""


def rows() -> list[Row]:
    """Check everything, in the order of `titles`."""
    calls = calls_made()
    fp8_te._layers.cache_clear()
    with _a_gpu_said_to_be_there():
        found = [_row(str(call), lambda call=call: bound(call)) for call in calls]
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


def _same(name: str, found: Any, wanted: Any) -> None:
    if found != wanted:
        raise Differs(f"{name} is {found}, not {wanted}")


# --------------------------------------------------------------------------------------------------------------- calls


def bound(call: Call) -> str:
    """Bind the call to the real signature: every argument under the name that we mean, none in `*args` or `**kwargs`."""
    owner, method = real(call.target)
    is_made = method == "__init__"  # asked of the class: `__init__` of some takes anything, and the class knows better
    signature = inspect.signature(owner if is_made else getattr(owner, method))
    place = [] if is_made else [object()]
    arguments = signature.bind(*place, *(object() for _ in call.meant), **dict.fromkeys(call.named)).arguments
    names = list(signature.parameters)[len(place) :]
    _same("the order of arguments", tuple(names[: len(call.meant)]), call.meant)
    unknown = [name for name in call.named if name not in arguments]
    _same("what no argument has the name of", unknown, [])
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
        _same("its class", type(made), Float8BlockScaling)
        _same("its format", made.fp8_format, Format.E4M3)
        dims = (made.x_block_scaling_dim, made.w_block_scaling_dim, made.grad_block_scaling_dim)
        _same("the dimensions of tiles", dims, (1, 2, 1))
        for name in ("fp8_quant_fwd_inp", "fp8_quant_fwd_weight", "fp8_quant_bwd_grad"):
            if not hasattr(Float8BlockScaling, name):
                raise Differs(f"it has no {name}")
            _same(name, getattr(made, name), QParams(power_2_scale=power_of_two, amax_epsilon=0.0))
        products = (made.fp8_gemm_fprop, made.fp8_gemm_dgrad, made.fp8_gemm_wgrad)
        _same("split accumulation", [product.use_split_accumulator for product in products], [True] * 3)
        _same("backward_override", made.backward_override, None)
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
            _same(f"dimensions of {mode}", [one.block_scaling_dim for one in made], wanted)
            _same("powers of two", {one.force_pow_2_scales for one in made}, {power_of_two})
            _same("epsilon and tile", {(one.amax_epsilon, one.block_len) for one in made}, {(0.0, 128)})
    return f"{type(made[0]).__name__}: forward x 1, weight 2, backward 1, tiles of 128, powers of two or not, as asked"


# -------------------------------------------------------------------------------------------------------------- layers


def _pair(backend: str) -> tuple[nn.Module, nn.Module]:
    precision: Any = FP8Precision(backend, "fp32")  # type: ignore[arg-type]
    return precision.linear(WIDE, NARROW, True), precision.grouped_linear(EXPERTS, WIDE, NARROW, True)


def _shapes(module: nn.Module) -> dict[str, tuple[Any, ...]]:
    return {name: (*tensor.shape, tensor.dtype) for name, tensor in module.state_dict().items()}


def _loads_both_ways(theirs: nn.Module, ours: nn.Module) -> None:
    _same("the state", _shapes(theirs), _shapes(ours))
    theirs.load_state_dict(ours.state_dict(), strict=True)
    for name, tensor in theirs.state_dict().items():
        if not torch.equal(tensor, ours.state_dict()[name]):
            raise Differs(f"{name} has other numbers after loading")
    ours.load_state_dict(theirs.state_dict(), strict=True)


@torch.no_grad()
def layers_state() -> str:
    """Keys, shapes and types of both layers are those of the emulation."""
    for theirs, ours in zip(_pair("te"), _pair("emulate"), strict=True):
        for parameter in ours.parameters():
            parameter.normal_()
        _loads_both_ways(theirs, ours)
    return ", ".join(str(_shapes(layer)) for layer in _pair("te"))


@torch.no_grad()
def model_state() -> str:
    """Keys, shapes and types of a model with MLA, dense and mixture blocks and an MTP module."""
    sizes = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 16, "qk_rope_head_dim": 16, "v_head_dim": 16}
    config = ModelConfig(
        vocab_size=32, d_model=64, n_layers=2, n_dense_layers=1, n_heads=2, d_ff_dense=96, d_ff_expert=32,
        n_routed_experts=4, n_shared_experts=1, n_activated_experts=2, mtp_depth=1, max_positions=16, **sizes,
    )  # fmt: skip
    theirs, ours = (DeepSeekBackbone(config, FP8Precision(backend, "fp32")) for backend in ("te", "emulate"))
    _loads_both_ways(theirs, ours)
    return f"{len(ours.state_dict())} tensors"


def without_numbers() -> str:
    """On the device meta both layers are made without numbers, and get them where they are wanted."""
    with torch.device("meta"):
        made = _pair("te")
    _same("devices", {p.device.type for layer in made for p in layer.parameters()}, {"meta"})
    devices = {p.device.type for layer in made for p in layer.to_empty(device="cpu").parameters()}
    _same("devices afterwards", devices, {"cpu"})
    return "made on meta, then given memory by `to_empty`"


def free_names() -> str:
    """The names under which our layers keep things of their own mean nothing to the package's."""
    import transformer_engine.pytorch as te

    plain = te.Linear(WIDE, NARROW, bias=False, params_dtype=torch.float32, device="cpu")
    ours = sorted((set(vars(_pair("te")[0])) - set(vars(plain))) | {name for name in vars(FP8Layer) if name[0] != "_"})
    taken = [name for name in ours if hasattr(plain, name)]
    _same("names that are taken", taken, [])
    return ", ".join(ours)


def lent_weights() -> str:
    """The grouped layer finds what it is lent, expert by expert, and a gradient reaches our parameter."""
    layer: Any = _pair("te")[1]
    weight: Tensor = layer.weight
    with torch.no_grad():
        weight.normal_()
    _same("parameters of its own", [name for name, _ in layer.products.named_parameters()], [])
    with fp8_te._lent(layer.products, weight):
        found, biases = layer.products._get_weight_tensors(), layer.products._get_bias_tensors()
    _same("how many are found", (len(found), len(biases)), (EXPERTS, EXPERTS))
    if not all(torch.equal(one, whole.T) and one.is_contiguous() for one, whole in zip(found, weight, strict=True)):
        raise Differs("the matrices found are not the experts' in order, out x in")
    sum(one.sum() * number for number, one in enumerate(found)).backward()
    _same("gradients", [float(part.unique()) for part in weight.grad], [float(n) for n in range(EXPERTS)])
    return "`_get_weight_tensors` finds weight0 to weight2, contiguous, with gradients"


@torch.no_grad()
def copies() -> str:
    """A deep copy, as of a frozen reference, has weights of its own."""
    for layer in _pair("te"):
        copied = copy.deepcopy(layer)
        before = layer.get_parameter("weight").clone()
        copied.get_parameter("weight").add_(1.0)
        if not torch.equal(layer.get_parameter("weight"), before):
            raise Differs("the copy shares its weight")
    return "copy.deepcopy of both layers"


CHECKS: dict[str, Callable[[], str]] = {
    "the recipe is DeepSeek's, with the scales that we ask for": recipe_values,
    "the quantisers have the recipe's scales and tiles": quantisers,
    "layers have the keys, shapes and types of `fp8_emulated` and load both ways, strictly": layers_state,
    "so does a model with MLA, dense and mixture blocks and MTP": model_state,
    "layers can be made without numbers": without_numbers,
    "names that our layers add are free": free_names,
    "experts' weights are found where they are lent, and have gradients": lent_weights,
    "layers can be copied": copies,
}
NO_GPU = "needs a GPU; `python scripts/gpu_check.py --only"
UNSEEN: dict[str, str] = {
    "`te.autocast` turns FP8 on (it asks the GPU for its capability)": f"{NO_GPU} fp8_products` runs it",
    "bytes and scales of its quantisers": f"{NO_GPU} fp8_bits` compares them",
    "its products forward and backward, ragged and empty experts": f"{NO_GPU} fp8_products` compares them",
    "`Fp8Padding` and `Fp8Unpadding` by its kernels": f"{NO_GPU} fp8_products` runs them",
    "speed and memory": f"{NO_GPU} fp8_speed` measures them",
    "recomputed blocks, several GPUs": "needs a GPU; nothing of ours measures them there yet",
}
