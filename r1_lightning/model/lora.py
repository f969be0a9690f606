"""LoRA (Hu et al. 2021, arXiv:2106.09685): a frozen weight W learns as W + (alpha / rank) B A, by `peft` (extra `lora`).

A (rank x in) is drawn at random and B (out x rank) begins at 0 (section 4.1), so that a model with fresh adapters is its base, bit
for bit. Only A and B train: gradients and optimizer state are theirs alone. And since W stays, so does the base: the policy with
its adapters switched off is the reference, and needs no second copy (`stages.reference.BaseAsReference`).

The adapters are put into the model in place. Its names stay, with peft's own beside them:

    q_proj.weight  ->  q_proj.base_layer.weight, q_proj.lora_A.default.weight (A), q_proj.lora_B.default.weight (B)

This is the only file that imports peft, and only where there are adapters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from r1_lightning.types.errors import InvalidInput, require, require_int, require_number

ADAPTER = "default"  # the name that peft gives an adapter which has none
BASE = ".base_layer."
MATRICES = (".lora_A.", ".lora_B.")


@dataclass(frozen=True)
class LoraSettings:
    """`target_modules` are the last parts of the names of the linear layers to adapt; by default those of the paper's section 4.2.

    `dropout` is on the adapters' input while training. Its draws are not part of a checkpoint: with it, a resumed run is not the
    uninterrupted one to the last bit.
    """

    rank: int
    alpha: float
    dropout: float = 0.0
    target_modules: Sequence[str] = ("q_proj", "v_proj")

    def __post_init__(self) -> None:
        require_int("model.lora.rank", self.rank, 1)
        require_number("model.lora.alpha", self.alpha, 0.0, open_minimum=True)
        require_number("model.lora.dropout", self.dropout, 0.0, 1.0)
        require(self.dropout < 1, "model.lora.dropout", self.dropout, "it must be below 1")
        is_list = isinstance(self.target_modules, Sequence) and not isinstance(self.target_modules, str)
        names = tuple(self.target_modules) if is_list else ()
        is_named = bool(names) and all(isinstance(name, str) and name for name in names)
        allowed = "it must be a list of linear layers by name, such as [q_proj, v_proj]"
        require(is_named, "model.lora.target_modules", self.target_modules, allowed)
        object.__setattr__(self, "target_modules", names)  # a plain one, whatever list a configuration holds


def require_peft() -> None:
    """Raise `InvalidInput` naming the extra where peft is not installed."""
    if find_spec("peft") is None:
        raise InvalidInput("model.lora is not allowed: peft is not installed here; pip install -e '.[lora]'")


def add_adapters(model: Any, settings: LoraSettings, seed: int) -> None:
    """Freeze `model` (of `transformers`) and put fresh adapters into it, drawn from `seed`.

    Raises InvalidInput where peft is missing, and for a target that is no linear layer of the model or its output head: losses
    take the head's matrix as it is.
    """
    head = model.get_output_embeddings()
    linear = [name for name, part in model.named_modules() if isinstance(part, nn.Linear) and part is not head]
    known = ", ".join(sorted({name.rpartition(".")[2] for name in linear}))
    for target in settings.target_modules:
        found = any(f".{name}".endswith(f".{target}") for name in linear)
        require(found, "model.lora.target_modules", target, f"the linear layers that this model can adapt are {known}")
    require_peft()
    from peft import LoraConfig, inject_adapter_in_model

    targets = list(settings.target_modules)
    config = LoraConfig(
        r=settings.rank, lora_alpha=settings.alpha, lora_dropout=settings.dropout, target_modules=targets
    )
    model.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):  # what peft draws is drawn anew
        inject_adapter_in_model(config, model, ADAPTER)
    draw_adapters(model, seed)


@torch.no_grad()
def draw_adapters(module: nn.Module, seed: int) -> None:
    """A drawn from `seed` as peft draws it (uniform, Kaiming with a = sqrt 5), B = 0."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for _, layer in _adapted(module):
            nn.init.kaiming_uniform_(layer.lora_A[ADAPTER].weight, a=math.sqrt(5))
            nn.init.zeros_(layer.lora_B[ADAPTER].weight)


@torch.no_grad()
def fold_adapters(module: nn.Module, seed: int) -> None:
    """Add what the adapters have learned to the base, and begin new ones: the model stays what it is, to within rounding.

    So a stage that starts from an adapted policy holds on to that policy, and not to the base of an earlier stage. Nothing is done
    where there are no adapters.
    """
    for _, layer in _adapted(module):
        layer.get_base_layer().weight.add_(layer.get_delta_weight(ADAPTER))
    draw_adapters(module, seed)


@contextmanager
def without_adapters(module: nn.Module) -> Iterator[None]:
    """Inside, `module` is its base. Afterwards all is as it was, also after an exception: adapters, and what trains."""
    before = [(layer, layer.disable_adapters, list(layer.parameters())) for _, layer in _adapted(module)]
    trains = [[parameter.requires_grad for parameter in parameters] for *_, parameters in before]
    try:
        for layer, *_ in before:
            layer.enable_adapters(False)
        yield
    finally:
        for (layer, was_off, parameters), flags in zip(before, trains, strict=True):
            layer.enable_adapters(not was_off)
            for parameter, flag in zip(parameters, flags, strict=True):  # peft has all adapters train again
                parameter.requires_grad_(flag)


def merged(model: nn.Module) -> dict[str, Callable[[], Tensor]]:
    """The stored name of every weight with an adapter -> what makes W + (alpha / rank) B A; `model` stays as it is."""
    return {f"{name}.weight": partial(_merged, layer) for name, layer in _adapted(model)}


def _merged(layer: Any) -> Tensor:
    weight: Tensor = layer.get_base_layer().weight.detach()
    delta: Tensor = layer.get_delta_weight(ADAPTER).detach()
    return weight + delta.to(weight.dtype)


def is_adapter(name: str) -> bool:
    """Whether a tensor of this name belongs to an adapter."""
    return any(matrix in name for matrix in MATRICES)


def has_adapters(module: nn.Module) -> bool:
    return any(is_adapter(name) for name, _ in module.named_parameters())


def base_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`state` under the names that it has without adapters."""
    return {name.replace(BASE, "."): tensor for name, tensor in state.items() if not is_adapter(name)}


def _adapted(module: nn.Module) -> list[tuple[str, Any]]:
    """The layers that have an adapter, with their names."""
    if not has_adapters(module):
        return []
    from peft.tuners.lora import LoraLayer

    return [(name, part) for name, part in module.named_modules() if isinstance(part, LoraLayer)]
