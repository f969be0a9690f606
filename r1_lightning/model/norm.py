"""RMSNorm in FP32 whatever the compute type, as DeepSeek-V3 keeps its norms (section 3.3).

y = x / sqrt(mean(x^2) + eps) * weight
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from r1_lightning.model.precision import FP32


class RMSNorm(nn.Module):
    """Normalises the last dimension of ... x D to unit root mean square, then scales by a learned weight of D."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), self.weight.shape, self.weight, self.eps).to(x.dtype)


def norm_bytes(width: int) -> int:
    """Bytes per token that the norm keeps for the backward: the input, one over its root mean square, and their product.

    The output belongs to whoever reads it.
    """
    return FP32 * (2 * width + 1)
