"""The weights of matrix products, cast to the compute type once per call of the sampler.

Training keeps FP32 weights, and autocast makes 16-bit numbers of them in every forward. A forward of a training step reads each
weight for thousands of tokens; a decoding step reads it for one token of each row, and then reading four bytes, writing two and
reading them again takes most of its time. While `cast_once` is open, layers hold the cast numbers themselves: those that autocast
would make, so no bit of a result changes. Beside the weights it takes 2 bytes per number, as autocast's copies do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from r1_lightning.model.precision import FP8Layer, GroupedLinear, compute_type


@contextmanager
def cast_once(backbone: Any, leave_out: Iterable[nn.Module] = ()) -> Iterator[None]:
    """Hold the weights of `backbone`'s linear layers in the type of its decoding steps inside the block; FP32 comes back.

    Parts below `leave_out` keep theirs, as do layers that multiply in FP8, the router, norms and the embedding, also one whose
    weight the head shares. No weight may change inside. Does nothing in FP32, and for what is no module.
    """
    swapped: list[tuple[nn.Module, str, nn.Parameter]] = []
    try:
        if isinstance(backbone, nn.Module) and hasattr(backbone, "precision"):
            left = {id(part) for other in leave_out for part in other.modules()}
            dtype = _decoding_type(backbone)
            for part in backbone.modules():
                if id(part) not in left and _is_cast(part):
                    _swap(part, dtype, swapped)
        yield
    finally:
        for part, name, parameter in swapped:
            setattr(part, name, parameter)


def _is_cast(part: nn.Module) -> bool:
    """True for layers whose weights autocast casts."""
    return isinstance(part, (nn.Linear, GroupedLinear)) and not isinstance(part, FP8Layer)


def _decoding_type(backbone: Any) -> torch.dtype:
    kind = next((parameter.device.type for parameter in backbone.parameters()), "cpu")
    with backbone.precision.decoding(kind):
        return compute_type(kind)


def _swap(part: nn.Module, dtype: torch.dtype, swapped: list[tuple[nn.Module, str, nn.Parameter]]) -> None:
    """Give `part` its FP32 parameters in `dtype`; adds what they were to `swapped`, each before it goes."""
    for name, parameter in list(part.named_parameters(recurse=False)):
        if parameter.dtype == torch.float32 and dtype != torch.float32:
            cast = nn.Parameter(parameter.detach().to(dtype), requires_grad=False)
            swapped.append((part, name, parameter))
            setattr(part, name, cast)
