"""Routed experts with shapes that depend only on the number of tokens, as torch.compile needs; AMX runs them fast, too.

`grouped_mm` takes as many rows per expert as the router sent there, so its shapes depend on the data: torch compiles no graph
through it in FP32, and oneDNN makes a new BF16 kernel for almost every row count. Two replacements compute the same sum (V3 eq 12):

- **blocks**: tokens are sorted by expert, every expert's rows are padded to whole blocks of `BLOCK_ROWS`, and one batched product
  runs over all blocks, each with its expert's matrix. N K rows never need more than N K / BLOCK_ROWS + E blocks.
- **dense**: every expert computes every token, and gates of 0 drop the experts that were not chosen. This takes E / K times the
  arithmetic but no sorting, which is faster for few tokens, as in decoding.

Padding rows hold copies of some token; nothing is ever read from them, and their gradients are 0.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from r1_lightning.model.feed_forward import swiglu

# Shape legend: N tokens, D model width, F expert width, E routed experts, K chosen experts, L blocks of R rows, S = L R places.

BLOCK_ROWS = 128
# Up to this many (token, expert) pairs are computed densely: decoding steps of 512 tokens with 8 experts, or of 16 with 256.
DENSE_PAIRS = 4096


class Blocks(NamedTuple):
    """The place of each choice (token n, its k-th expert) in the blocks.

    place_of_choice NK; choice_of_place S, the inverse, with NK at padding places; expert_of_block L.
    """

    place_of_choice: Tensor
    choice_of_place: Tensor
    expert_of_block: Tensor


def lay_out(chosen_NK: Tensor, n_experts: int, block_rows: int = BLOCK_ROWS) -> Blocks:
    """Assign every choice a place in the blocks, so that no block holds rows of two experts."""
    sorted_experts, order = chosen_NK.flatten().sort(stable=True)
    n_choices = chosen_NK.numel()
    n_blocks = n_choices // block_rows + n_experts
    experts_E = torch.arange(n_experts, device=order.device)
    ends_E = torch.searchsorted(sorted_experts, experts_E, right=True)
    begins_E = torch.searchsorted(sorted_experts, experts_E)
    block_ends_E = ((ends_E - begins_E + block_rows - 1) // block_rows).cumsum(0)
    first_places_E = torch.cat([block_ends_E.new_zeros(1), block_ends_E[:-1]]) * block_rows
    choices = torch.arange(n_choices, device=order.device)
    places = choices + (first_places_E - begins_E)[sorted_experts]
    place_of_choice = torch.zeros_like(order).scatter(0, order, places)
    choice_of_place = torch.full((n_blocks * block_rows,), n_choices, device=order.device).scatter(0, places, order)
    blocks = torch.arange(n_blocks, device=order.device)
    expert_of_block = torch.searchsorted(block_ends_E, blocks, right=True).clamp(max=n_experts - 1)
    return Blocks(place_of_choice, choice_of_place, expert_of_block)


def blocked_experts(x_ND: Tensor, chosen_NK: Tensor, gates_NK: Tensor, gate_up_EDF: Tensor, down_EFD: Tensor) -> Tensor:
    """The gated sum of the chosen experts' outputs, N x D; `gate_up_EDF` E x D x 2F holds the gates' halves first."""
    blocks = lay_out(chosen_NK, len(gate_up_EDF))
    x_SD = Spread.apply(x_ND.to(gate_up_EDF.dtype), chosen_NK.shape[1], *blocks[:2])
    hidden_LRF = swiglu(_BlockProduct.apply(x_SD.unflatten(0, (-1, BLOCK_ROWS)), gate_up_EDF, blocks.expert_of_block))
    y_SD = _BlockProduct.apply(hidden_LRF, down_EFD, blocks.expert_of_block).flatten(0, 1)
    y_NKD = Collect.apply(y_SD, *blocks[:2]).unflatten(0, chosen_NK.shape)
    return (gates_NK.unsqueeze(-1).to(y_NKD.dtype) * y_NKD).sum(1)


def dense_experts(x_ND: Tensor, chosen_NK: Tensor, gates_NK: Tensor, gate_up_EDF: Tensor, down_EFD: Tensor) -> Tensor:
    """The same sum as `blocked_experts`, N x D, by computing all experts for all tokens."""
    n_experts, d_model, width = gate_up_EDF.shape
    gates_NE = gates_NK.new_zeros(len(gates_NK), n_experts).scatter_add(1, chosen_NK, gates_NK)
    side_by_side = gate_up_EDF.transpose(0, 1).reshape(d_model, n_experts * width)
    hidden_NEF = swiglu((x_ND.to(gate_up_EDF.dtype) @ side_by_side).unflatten(1, (n_experts, width)))
    gated = hidden_NEF * gates_NE.unsqueeze(-1).to(hidden_NEF.dtype)
    return gated.flatten(1) @ down_EFD.flatten(0, 1)


class Spread(torch.autograd.Function):
    """Copy tokens to places, N x D to S x D. Backward gathers as well: a scatter-add would be slow and add in no fixed order."""

    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, n_chosen: int, place_of_choice: Tensor, choice_of_place: Tensor) -> Tensor:
        ctx.save_for_backward(place_of_choice)
        ctx.n_chosen = n_chosen
        return x_ND[(choice_of_place // n_chosen).clamp(max=len(x_ND) - 1)]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (place_of_choice,) = ctx.saved_tensors
        return gradients[0][place_of_choice].unflatten(0, (-1, ctx.n_chosen)).sum(1), None, None, None


class Collect(torch.autograd.Function):
    """Gather places back to choices, S x D to NK x D; the gradient of a padding place is 0."""

    @staticmethod
    def forward(ctx: Any, y_SD: Tensor, place_of_choice: Tensor, choice_of_place: Tensor) -> Tensor:
        ctx.save_for_backward(choice_of_place)
        return y_SD[place_of_choice]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (choice_of_place,) = ctx.saved_tensors
        n_choices = len(gradients[0])
        found = gradients[0][choice_of_place.clamp(max=n_choices - 1)]
        return torch.where((choice_of_place < n_choices).unsqueeze(1), found, 0), None, None


class _BlockProduct(torch.autograd.Function):
    """L x R x in times each block's own matrix of E x in x out; an expert's gradient is the sum over its blocks."""

    @staticmethod
    def forward(ctx: Any, x_LRi: Tensor, weight_Eio: Tensor, expert_of_block: Tensor) -> Tensor:
        ctx.save_for_backward(x_LRi, weight_Eio, expert_of_block)
        return torch.bmm(x_LRi, weight_Eio[expert_of_block])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        x_LRi, weight_Eio, expert_of_block = ctx.saved_tensors
        x_gradient = torch.bmm(gradients[0], weight_Eio.transpose(1, 2)[expert_of_block])
        by_block = torch.bmm(x_LRi.transpose(1, 2), gradients[0]).flatten(1)
        experts_E1 = torch.arange(len(weight_Eio), device=by_block.device).unsqueeze(1)
        is_its_block_EL = (experts_E1 == expert_of_block).to(by_block.dtype)
        return x_gradient, (is_its_block_EL @ by_block).view_as(weight_Eio), None
