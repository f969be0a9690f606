"""The routed experts: tokens are sorted by expert, then two grouped matrix products serve all experts at once.

With torch.compile `model/expert_blocks.py` computes the same sum where `grouped_mm` cannot stand in a graph or is slow: on a GPU in
FP32, and on a CPU in BF16, for which oneDNN would make a kernel for every row count. In FP32 on a CPU blocks would be padding for
nothing (256 experts, 512 tokens: 9 times the work).

No token is dropped and none is padded (V3 section 2.1.2). Sorting, gathering and the inverse gather replace scatter-adds,
which are slow on CPUs and add in no fixed order on GPUs; so a token's result does not depend on the other tokens of the batch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from r1_lightning.model.config import ModelConfig
from r1_lightning.model.expert_blocks import DENSE_PAIRS, Collect, Spread, blocked_experts, dense_experts
from r1_lightning.model.feed_forward import swiglu
from r1_lightning.model.precision import Precision, compute_type, in_compute_type

# Shape legend: N tokens, D model width, E routed experts, K chosen experts.


def has_grouped_kernel(device_type: str) -> bool:
    """True where `grouped_mm` is one kernel that reads the ends of the experts' rows itself and compiles: on a GPU in 16 bits.

    By the documentation; it was not run on a GPU yet. Blocks of experts compute more and copy matrices: they are for CPUs.
    """
    return device_type == "cuda" and compute_type(device_type) in (torch.bfloat16, torch.float16)


class Experts(nn.Module):
    """Tokens N x D, chosen experts N x K, gates N x K to the gated sum of the experts' outputs N x D (V3 eq 12)."""

    def __init__(self, config: ModelConfig, precision: Precision) -> None:
        super().__init__()
        self.n_experts = config.n_routed_experts
        d_model, d_ff = config.d_model, config.d_ff_expert
        self.gate_up = precision.grouped_linear(self.n_experts, d_model, 2 * d_ff, fp8_eligible=True)
        self.static_shapes = precision.static_shapes
        self.down = precision.grouped_linear(self.n_experts, d_ff, d_model, fp8_eligible=True)

    def forward(self, x_ND: Tensor, chosen_NK: Tensor, gates_NK: Tensor) -> Tensor:
        device = x_ND.device.type
        if not self.static_shapes or has_grouped_kernel(device):
            return self._grouped(x_ND, chosen_NK, gates_NK)
        is_small = len(x_ND) * self.n_experts <= DENSE_PAIRS
        # Our own operator (`grouped_product.py`); elsewhere no graph can be compiled through `grouped_mm` in FP32.
        if not is_small and device == "cpu" and compute_type(device) == torch.float32:
            return self._grouped(x_ND, chosen_NK, gates_NK)
        compute = dense_experts if is_small else blocked_experts
        weights = [in_compute_type(layer.get_parameter("weight")) for layer in (self.gate_up, self.down)]
        return compute(x_ND, chosen_NK, gates_NK, *weights)

    def _grouped(self, x_ND: Tensor, chosen_NK: Tensor, gates_NK: Tensor) -> Tensor:
        n_tokens, n_chosen = chosen_NK.shape
        sorted_experts, order = chosen_NK.flatten().sort(stable=True)
        inverse = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
        experts_E = torch.arange(self.n_experts, device=order.device)
        # Not `bincount`: on a GPU the host would wait for its length, once per layer and token.
        ends_E = torch.searchsorted(sorted_experts, experts_E, right=True, out_int32=True)
        # A compiler would make scatter-adds of the gathers' gradients, which take longer; eager's own are the faster ones.
        sorted_x = (
            Spread.apply(x_ND, n_chosen, inverse, order)
            if self.static_shapes
            else x_ND.index_select(0, order // n_chosen)
        )
        sorted_y = self.down(swiglu(self.gate_up(sorted_x, ends_E)), ends_E)
        y_ND = Collect.apply(sorted_y, inverse, order) if self.static_shapes else sorted_y.index_select(0, inverse)
        y_NKD = y_ND.view(n_tokens, n_chosen, -1)
        return torch.matmul(gates_NK.unsqueeze(-2).to(y_NKD.dtype), y_NKD).squeeze(-2)
