"""`grouped_mm` as an operator that a compiled graph holds in FP32 on a CPU.

torch takes the shapes of `F.grouped_mm` for a graph from a rule that knows BF16 alone (torch 2.13), so nothing in FP32 compiles
through it. The shapes are simple, N x D rows to N x F, whatever the routes; here they are given by ourselves, with both gradients,
and the graph calls the same product as eager code.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# Shape legend: N rows sorted by expert, D in, F out, E experts.


@torch.library.custom_op("r1_lightning::grouped_product", mutates_args=())
def grouped_product(x_ND: Tensor, weight_EDF: Tensor, ends_E: Tensor) -> Tensor:
    """Return N x F: rows ends[e-1]:ends[e] (int32) of `x_ND` times the matrix of expert e."""
    return F.grouped_mm(x_ND, weight_EDF, offs=ends_E)


@torch.library.custom_op("r1_lightning::grouped_weight_gradient", mutates_args=())
def grouped_weight_gradient(x_ND: Tensor, gradient_NF: Tensor, ends_E: Tensor) -> Tensor:
    """Return E x D x F: of every expert the products of its rows and their gradients, 0 of one without rows."""
    return F.grouped_mm(x_ND.transpose(0, 1), gradient_NF, offs=ends_E)


@grouped_product.register_fake
def _(x_ND: Tensor, weight_EDF: Tensor, ends_E: Tensor) -> Tensor:
    return x_ND.new_empty(x_ND.shape[0], weight_EDF.shape[2])


@grouped_weight_gradient.register_fake
def _(x_ND: Tensor, gradient_NF: Tensor, ends_E: Tensor) -> Tensor:
    return x_ND.new_empty(ends_E.shape[0], x_ND.shape[1], gradient_NF.shape[1])


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, gradient_NF: Tensor) -> tuple[Tensor, Tensor, None]:
    x_ND, weight_EDF, ends_E = ctx.saved_tensors
    gradient_NF = gradient_NF.contiguous()
    by_row = grouped_product(gradient_NF, weight_EDF.transpose(1, 2), ends_E)
    return by_row, grouped_weight_gradient(x_ND, gradient_NF, ends_E), None


grouped_product.register_autograd(_backward, setup_context=_keep)
