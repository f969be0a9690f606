"""Initial weights: normal with `init_std` for every matrix, ones for norms, zeros for expert biases (V3 section 4.2)."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def init_weights(module: nn.Module, std: float, seed: int) -> None:
    """Draw every weight of `module` from `seed` alone, in the order of its parameters."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        if parameter.dim() == 1:
            parameter.fill_(1.0)  # the only vectors are norm weights
        else:
            # On the CPU, so that a seed gives the same weights on every device; without memory where the model has none.
            is_meta = parameter.device.type == "meta"
            drawn = torch.empty(parameter.shape, device="meta" if is_meta else "cpu")
            parameter.copy_(drawn.normal_(0.0, std, generator=generator))
    for name, buffer in module.named_buffers():
        if name.endswith("expert_bias"):
            buffer.zero_()
