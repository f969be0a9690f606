"""SwiGLU feed-forward: down(silu(gate(x)) * up(x)), the dense layers and the shared expert of DeepSeekMoE.

Gate and up share one matrix (gate first), so that one GEMM serves both.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from r1_lightning.model.precision import Precision


def swiglu(gate_up: Tensor) -> Tensor:
    """silu(first half) * second half over the last dimension: ... x 2F to ... x F."""
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate) * up


class FeedForward(nn.Module):
    """... x d_model to ... x d_model through a hidden width of `d_ff`."""

    def __init__(self, d_model: int, d_ff: int, precision: Precision) -> None:
        super().__init__()
        self.gate_up = precision.linear(d_model, 2 * d_ff, fp8_eligible=True)
        self.down = precision.linear(d_ff, d_model, fp8_eligible=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(swiglu(self.gate_up(x)))
