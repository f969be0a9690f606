"""LoRA (Hu et al. 2021, arXiv:2106.09685): a frozen weight W learns as W + (alpha / rank) B A, by `peft` (extra `lora`).

A (rank x in) is drawn at random and B (out x rank) begins at 0 (section 4.1), so a model with fresh adapters equals its base, bit
for bit. Only A and B train, so only they have gradients and optimizer state. And since W stays, the base stays, too: the policy
with its adapters switched off is the reference, without a second copy (`stages.reference.BaseAsReference`).

The adapters are injected into the model in place. Its parameter names gain parts that peft chooses:

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

from r1_lightning.functional.shards import fill, keep_rows, local, whole
from r1_lightning.model.init import DrawnOnCPU
from r1_lightning.types.errors import InvalidInput, require, require_int, require_number

ADAPTER = "default"  # peft's name for an adapter that was given none
BASE = ".base_layer."
MATRICES = (".lora_A.", ".lora_B.")


@dataclass(frozen=True)
class LoraSettings:
    """`target_modules` are the last parts of the names of the linear layers to adapt; by default those of the paper's section 4.2.

    `dropout` acts on the adapters' input in training.
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
        object.__setattr__(self, "target_modules", names)  # a plain tuple in place of the configuration's list type


def require_peft() -> None:
    """Raise `InvalidInput` naming the extra to install if peft is missing."""
    if find_spec("peft") is None:
        raise InvalidInput("model.lora is not allowed: peft is not installed here; pip install -e '.[lora]'")


def add_adapters(model: Any, settings: LoraSettings, seed: int) -> None:
    """Freeze `model` (of `transformers`) and inject fresh adapters, drawn from `seed`.

    Raises InvalidInput if peft is missing, and for a target that is not a linear layer of the model. The output head is refused
    as well, because losses use its matrix directly, without an adapter.
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
    # peft draws A from the global generator; we draw it again from `seed` below.
    with torch.random.fork_rng(devices=[]), DrawnOnCPU():
        inject_adapter_in_model(config, model, ADAPTER)
    draw_adapters(model, seed)


@torch.no_grad()
def draw_adapters(module: nn.Module, seed: int) -> None:
    """Draw A from `seed` as peft does (Kaiming uniform with a = sqrt 5) and set B to 0."""
    with torch.random.fork_rng(devices=[]), DrawnOnCPU():
        torch.manual_seed(seed)
        for _, layer in _adapted(module):
            weight_A, weight_B = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
            drawn = torch.empty(weight_A.shape, dtype=weight_A.dtype, device=weight_A.device)
            fill(weight_A, nn.init.kaiming_uniform_(drawn, a=math.sqrt(5)))
            nn.init.zeros_(local(weight_B))


@torch.no_grad()
def fold_adapters(module: nn.Module, seed: int) -> None:
    """Add each adapter's product to its base weight and draw fresh adapters: the model stays the same to within rounding.

    So the reference of a stage that starts from an adapted policy is that policy, not the base of an earlier stage. Does nothing
    to a model without adapters.
    """
    for _, layer in _adapted(module):
        base = layer.get_base_layer().weight
        local(base).add_(keep_rows(whole(layer.get_delta_weight(ADAPTER)), base))
    draw_adapters(module, seed)


@contextmanager
def without_adapters(module: nn.Module) -> Iterator[None]:
    """Switch the adapters of `module` off inside the block, and restore adapters and requires_grad afterwards in any case."""
    before = [(layer, layer.disable_adapters, list(layer.parameters())) for _, layer in _adapted(module)]
    trains = [[parameter.requires_grad for parameter in parameters] for *_, parameters in before]
    try:
        for layer, *_ in before:
            layer.enable_adapters(False)
        yield
    finally:
        for (layer, was_off, parameters), flags in zip(before, trains, strict=True):
            layer.enable_adapters(not was_off)
            for parameter, flag in zip(parameters, flags, strict=True):  # enable_adapters made all adapters trainable
                parameter.requires_grad_(flag)


def merged(model: nn.Module) -> dict[str, Callable[[], Tensor]]:
    """Return, by the stored name of each adapted weight, a function that computes W + (alpha / rank) B A; changes nothing."""
    return {f"{name}.weight": partial(_merged, layer) for name, layer in _adapted(model)}


def _merged(layer: Any) -> Tensor:
    weight: Tensor = layer.get_base_layer().weight.detach()
    delta: Tensor = layer.get_delta_weight(ADAPTER).detach()
    return weight + delta.to(weight.dtype)


def is_adapter(name: str) -> bool:
    """True if the tensor of this name belongs to an adapter."""
    return any(matrix in name for matrix in MATRICES)


def has_adapters(module: nn.Module) -> bool:
    return any(is_adapter(name) for name, _ in module.named_parameters())


def base_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return `state` without adapters, under the names that the base has."""
    return {name.replace(BASE, "."): tensor for name, tensor in state.items() if not is_adapter(name)}


def _adapted(module: nn.Module) -> list[tuple[str, Any]]:
    """Return the layers that have an adapter, with their names."""
    if not has_adapters(module):
        return []
    from peft.tuners.lora import LoraLayer

    return [(name, part) for name, part in module.named_modules() if isinstance(part, LoraLayer)]
