"""A sharded model's weights, gathered once into a whole copy to sample from.

Decoding runs the model once per token. Through `fully_shard` every token would gather every block; a whole copy gathers each weight
once, for as long as `whole_model` is open, and is then freed. It has no gradients, and it holds the weights of linear layers in the
compute type, which are the numbers that autocast would make of them: the tokens are those of one process that holds the model.
Beside the shards it takes 2 bytes per parameter in BF16, 4 in FP32.

Opening is a collective call, once per rollout or evaluation: every process opens, however few prompts it has, and none of them
trains while it is open. Inside, processes may work at their own pace, because nothing is gathered.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from r1_lightning.functional.shards import whole
from r1_lightning.model.precision import unchanged_weights, weights_cast_by_autocast

COPY = "whole_copy"  # the attribute of a sharded module that holds its `WholeCopy`
META = torch.device("meta")


class WholeCopy:
    """The frame of a module, made before it is sharded: its parts without weights, sharing its buffers (experts' biases).

    It is no module, because its frame's weights would get names in the state of the module that holds it.
    """

    def __init__(self, module: nn.Module, compute: torch.dtype) -> None:
        self.frame = _frame_of(module).requires_grad_(False).eval()
        cast = {id(parameter) for parameter in weights_cast_by_autocast(self.frame)}
        names = {id(parameter): name for name, parameter in self.frame.named_parameters()}
        self.types = {name: compute if number in cast else None for number, name in names.items()}
        # Two places may share a weight: tied embeddings.
        self.places: dict[str, list[tuple[nn.Module, str]]] = {name: [] for name in names.values()}
        for part in self.frame.modules():
            for name, parameter in part.named_parameters(recurse=False, remove_duplicate=False):
                self.places[names[id(parameter)]].append((part, name))
        self.openings = 0

    @torch.no_grad()
    def gather(self, module: nn.Module) -> None:
        """Fill the frame with the weights of the sharded `module`, one at a time."""
        for name, parameter in module.named_parameters():
            values = whole(parameter)
            self._put(name, values.to(self.types[name] or values.dtype))

    def free(self) -> None:
        """Drop the gathered weights."""
        for name, places in self.places.items():
            part, attribute = places[0]
            self._put(name, part.get_parameter(attribute).to(META))

    def _put(self, name: str, values: Tensor) -> None:
        parameter = nn.Parameter(values, requires_grad=False)
        for part, attribute in self.places[name]:
            setattr(part, attribute, parameter)


def _frame_of(module: nn.Module) -> nn.Module:
    """Return a copy of `module` without weights, with its own buffers; a part that is sharded already lends its frame."""
    sharded = {id(part): getattr(part, COPY) for part in module.modules() if getattr(part, COPY, None) is not None}
    memo: dict[int, Any] = {number: _frame_of(held.frame) for number, held in sharded.items()}
    for parameter in module.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.detach().to(META), requires_grad=False)
    memo |= {id(buffer): buffer for buffer in module.buffers()}
    return copy.deepcopy(module, memo)


@contextmanager
def whole_model(module: Any) -> Iterator[Any]:
    """Give `module` whole and in evaluation mode inside the block: itself, or of a sharded one its copy. Its own mode comes back.

    No weight may change inside. An inner block uses the weights of the outer one and gathers nothing.
    """
    held: WholeCopy | None = getattr(module, COPY, None)
    was_training = getattr(module, "training", False)
    if held is not None:
        held.openings += 1
    elif isinstance(module, nn.Module):
        module.eval()
    try:
        if held is not None and held.openings == 1:
            held.gather(module)
        given = module if held is None else held.frame
        with unchanged_weights(given) if isinstance(given, nn.Module) else nullcontext():
            yield given
    finally:
        if held is not None:
            held.openings -= 1
            if held.openings == 0:
                held.free()
        elif isinstance(module, nn.Module):
            module.train(was_training)
