"""Initial weights: normal with `init_std` for every matrix, ones for norms, zeros for expert biases (V3 section 4.2).

Whatever device the weights are on, they are drawn on the CPU, one tensor at a time, so that a seed gives the same weights on every
device and the host never holds a second model; a process that holds a share of each keeps its rows. `DrawnOnCPU` does so for code
of others (`transformers`, peft).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from r1_lightning.functional.shards import fill

DRAWN_AT = ("cpu", "meta")  # where a draw stays as it is: here, or without memory


@torch.no_grad()
def init_weights(module: nn.Module, std: float, seed: int) -> None:
    """Draw every weight of `module` from `seed` alone, in the order of its parameters."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        if parameter.dim() == 1:
            parameter.fill_(1.0)  # the only vectors are norm weights
        else:
            is_meta = parameter.device.type == "meta"
            place = "meta" if is_meta else "cpu"
            fill(parameter, torch.empty(parameter.shape, device=place).normal_(0.0, std, generator=generator))
    for name, buffer in module.named_buffers():
        if name.endswith("expert_bias"):
            buffer.zero_()


class DrawnOnCPU(TorchDispatchMode):
    """Inside the block every random number for a tensor of another device is drawn on the CPU and copied there."""

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        keywords = keywords or {}
        if torch.Tag.nondeterministic_seeded not in function.tags:
            return function(*arguments, **keywords)
        target: Any = arguments[0] if arguments else None
        place = keywords.get("device")
        if isinstance(target, Tensor) and torch.Tag.inplace in function.tags and target.device.type not in DRAWN_AT:
            drawn = torch.empty(target.shape, dtype=target.dtype, device="cpu")
            return target.copy_(function(drawn, *arguments[1:], **keywords))
        if function.overloadpacket.__name__.endswith("_like"):  # in the shape of a tensor, and on its device as a rule
            place = place or target.device
            arguments = (torch.empty_like(target, device="meta"), *arguments[1:])
        if place is not None and torch.device(place).type not in DRAWN_AT:
            return function(*arguments, **{**keywords, "device": torch.device("cpu")}).to(place)
        return function(*arguments, **{**keywords, "device": place} if place is not None else keywords)
