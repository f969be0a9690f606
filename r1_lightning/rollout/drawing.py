"""Drawing a token from a distribution by a uniform number: the inverse of the cumulative distribution, and top-p before it.

On a GPU the distribution is summed in whole numbers, because the order of its sums is not fixed there; on a CPU in floating ones.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Shape legend: R rows being sampled, V vocabulary.

SHARES = 2**40  # a power of 2, so that the product is exact; 2^17 tokens' worth stays far below 2^63


def in_shares(probabilities_RV: Tensor) -> Tensor:
    """Probabilities as whole numbers of `SHARES`: their running sums are the same in every order of summing.

    A GPU has no deterministic kernel for running sums of floating numbers. What is lost, less than 1 / `SHARES` a token, is small
    beside the step of the uniform numbers, 2^-24.
    """
    return (probabilities_RV * SHARES).long()


def nucleus(probabilities_RV: Tensor, top_p: float) -> Tensor:
    """The smallest set of most likely tokens whose mass reaches `top_p`, renormalised; others 0 (R x V)."""
    ordered, index = probabilities_RV.sort(dim=-1, descending=True, stable=True)
    mass, limit = (in_shares(ordered), math.ceil(top_p * SHARES)) if ordered.is_cuda else (ordered, top_p)
    keep = mass.cumsum(-1) - mass < limit  # a token stays while the mass before it is short of top_p
    kept = torch.zeros_like(probabilities_RV).scatter_(-1, index, ordered * keep)
    return kept / kept.sum(-1, keepdim=True)


def inverse_cdf(probabilities_RV: Tensor, uniforms_R: Tensor) -> Tensor:
    """Return R token ids: the token at which the cumulative distribution passes the uniform number."""
    if probabilities_RV.is_cuda:
        cumulative = in_shares(probabilities_RV).cumsum(-1)
        threshold = (uniforms_R.double().unsqueeze(-1) * cumulative[:, -1:]).long()
    else:
        cumulative = probabilities_RV.cumsum(-1)
        threshold = uniforms_R.unsqueeze(-1) * cumulative[:, -1:]
    return (cumulative <= threshold).sum(-1).clamp(max=probabilities_RV.shape[-1] - 1)
