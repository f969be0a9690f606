"""What our layers are when the real package makes them: state, devices, names, and experts' weights where it looks for them."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from r1_lightning.model import fp8_te
from r1_lightning.model.backbone import DeepSeekBackbone
from r1_lightning.model.config import ModelConfig
from r1_lightning.model.fp8_precision import FP8Precision
from r1_lightning.model.precision import FP8Layer

EXPERTS, WIDE, NARROW = 3, 32, 16
# MLA, a dense block and a mixture, an MTP module; widths in multiples of 16.
SMALL = ModelConfig(
    vocab_size=32, d_model=64, n_layers=2, n_dense_layers=1, n_heads=2, d_ff_dense=96, d_ff_expert=32,
    n_routed_experts=4, n_shared_experts=1, n_activated_experts=2, mtp_depth=1, max_positions=16,
    q_lora_rank=16, kv_lora_rank=16, qk_nope_head_dim=16, qk_rope_head_dim=16, v_head_dim=16,
)  # fmt: skip


class Differs(Exception):
    """The package is otherwise than our code takes it to be."""


def same(name: str, found: Any, wanted: Any) -> None:
    """Raise Differs unless both are equal."""
    if found != wanted:
        raise Differs(f"{name} is {found}, not {wanted}")


def pair(backend: str) -> tuple[nn.Module, nn.Module]:
    precision: Any = FP8Precision(backend, "fp32")  # type: ignore[arg-type]
    return precision.linear(WIDE, NARROW, True), precision.grouped_linear(EXPERTS, WIDE, NARROW, True)


def shapes(module: nn.Module) -> dict[str, tuple[Any, ...]]:
    return {name: (*tensor.shape, tensor.dtype) for name, tensor in module.state_dict().items()}


def _loads_both_ways(theirs: nn.Module, ours: nn.Module) -> None:
    same("the state", shapes(theirs), shapes(ours))
    theirs.load_state_dict(ours.state_dict(), strict=True)
    for name, tensor in theirs.state_dict().items():
        if not torch.equal(tensor, ours.state_dict()[name]):
            raise Differs(f"{name} has other numbers after loading")
    ours.load_state_dict(theirs.state_dict(), strict=True)


@torch.no_grad()
def layers_state() -> str:
    """Keys, shapes and types of both layers are those of the emulation."""
    for theirs, ours in zip(pair("te"), pair("emulate"), strict=True):
        for parameter in ours.parameters():
            parameter.normal_()
        _loads_both_ways(theirs, ours)
    return ", ".join(str(shapes(layer)) for layer in pair("te"))


@torch.no_grad()
def model_state() -> str:
    """Keys, shapes and types of a model with MLA, dense and mixture blocks and an MTP module."""
    theirs, ours = (DeepSeekBackbone(SMALL, FP8Precision(backend, "fp32")) for backend in ("te", "emulate"))
    _loads_both_ways(theirs, ours)
    return f"{len(ours.state_dict())} tensors"


def without_numbers() -> str:
    """On the device meta both layers are made without numbers, and get them where they are wanted."""
    with torch.device("meta"):
        made = pair("te")
    same("devices", {p.device.type for layer in made for p in layer.parameters()}, {"meta"})
    devices = {p.device.type for layer in made for p in layer.to_empty(device="cpu").parameters()}
    same("devices afterwards", devices, {"cpu"})
    return "made on meta, then given memory by `to_empty`"


def free_names() -> str:
    """The names under which our layers keep things of their own mean nothing to the package's."""
    import transformer_engine.pytorch as te

    plain = te.Linear(WIDE, NARROW, bias=False, params_dtype=torch.float32, device="cpu")
    ours = sorted((set(vars(pair("te")[0])) - set(vars(plain))) | {name for name in vars(FP8Layer) if name[0] != "_"})
    taken = [name for name in ours if hasattr(plain, name)]
    same("names that are taken", taken, [])
    return ", ".join(ours)


def lent_weights() -> str:
    """The grouped layer finds what it is lent, expert by expert, and a gradient reaches our parameter."""
    layer: Any = pair("te")[1]
    weight: Tensor = layer.weight
    with torch.no_grad():
        weight.normal_()
    same("parameters of its own", [name for name, _ in layer.products.named_parameters()], [])
    with fp8_te._lent(layer.products, weight):
        found, biases = layer.products._get_weight_tensors(), layer.products._get_bias_tensors()
    same("how many are found", (len(found), len(biases)), (EXPERTS, EXPERTS))
    if not all(torch.equal(one, whole.T) and one.is_contiguous() for one, whole in zip(found, weight, strict=True)):
        raise Differs("the matrices found are not the experts' in order, out x in")
    sum(one.sum() * number for number, one in enumerate(found)).backward()
    gradient = weight.grad
    assert gradient is not None
    same("gradients", [float(part.unique()) for part in gradient], [float(n) for n in range(EXPERTS)])
    return "`_get_weight_tensors` finds weight0 to weight2, contiguous, with gradients"


@torch.no_grad()
def copies() -> str:
    """A deep copy, as of a frozen reference, has weights of its own."""
    for layer in pair("te"):
        copied = copy.deepcopy(layer)
        before = layer.get_parameter("weight").clone()
        copied.get_parameter("weight").add_(1.0)
        if not torch.equal(layer.get_parameter("weight"), before):
            raise Differs("the copy shares its weight")
    return "copy.deepcopy of both layers"
