"""Drawing a token from a distribution by a uniform number: the inverse of the cumulative distribution, and top-p before it.

On a GPU the distribution is summed in whole numbers, because the order of its sums is not fixed there; on a CPU in floating ones.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

# Shape legend: R rows being sampled, V vocabulary, B blocks of b tokens.

SHARES = 2**40  # a power of 2, so that the product is exact; 2^17 tokens' worth stays far below 2^63

BLOCK_TOKENS = 512  # of the vocabulary: about the square root of a large one, so that both steps are short
SORTED_AT_MOST = 8192  # tokens of a vocabulary: up to here a sort is as fast
CANDIDATES = 1024  # likeliest tokens, among which the nucleus of a trained model ends
ROUNDING = 1e-5  # of a sum of probabilities
FEWEST_TOKENS = 32  # in a block that divides the vocabulary


def in_shares(probabilities_RV: Tensor) -> Tensor:
    """Probabilities as whole numbers of `SHARES`: their running sums are the same in every order of summing.

    A GPU has no deterministic kernel for running sums of floating numbers. What is lost, less than 1 / `SHARES` a token, is small
    beside the step of the uniform numbers, 2^-24.
    """
    return (probabilities_RV * SHARES).long()


def nucleus(probabilities_RV: Tensor, top_p: float) -> Tensor:
    """The smallest set of most likely tokens whose mass reaches `top_p`, renormalised; others 0 (R x V).

    On a CPU a large vocabulary is not sorted where its likeliest `CANDIDATES` decide. On a GPU it always is: the host would have to
    wait to learn that they do not.
    """
    kept = None
    if not probabilities_RV.is_cuda and probabilities_RV.shape[-1] >= SORTED_AT_MOST:
        kept = _of_candidates(probabilities_RV, top_p)
    if kept is None:
        ordered, index = probabilities_RV.sort(dim=-1, descending=True, stable=True)
        mass, limit = (in_shares(ordered), math.ceil(top_p * SHARES)) if ordered.is_cuda else (ordered, top_p)
        keep = mass.cumsum(-1) - mass < limit  # a token stays while the mass before it is short of top_p
        kept = torch.zeros_like(probabilities_RV).scatter_(-1, index, ordered * keep)
    return kept / kept.sum(-1, keepdim=True)


def _of_candidates(probabilities_RV: Tensor, top_p: float) -> Tensor | None:
    """What `nucleus` keeps, before it is renormalised, from the likeliest tokens alone; None where only all tokens can tell.

    The running sum over a beginning of the order is the beginning of the running sum. It is not enough where the candidates' mass
    falls short of `top_p`, by the bits of a sum too, and where tokens of one probability stand on both sides of the end.
    """
    ordered, index = probabilities_RV.topk(CANDIDATES, dim=-1)
    before = ordered.cumsum(-1) - ordered
    keep = before < top_p
    is_cut = (keep[:, :-1] != keep[:, 1:]) & (ordered[:, :-1] == ordered[:, 1:])
    if bool(is_cut.any()) or float(before[:, -1].min()) < top_p + ROUNDING:
        return None
    return torch.zeros_like(probabilities_RV).scatter_(-1, index, ordered * keep)


def inverse_cdf(probabilities_RV: Tensor, uniforms_R: Tensor) -> Tensor:
    """Return R token ids: the token at which the cumulative distribution passes the uniform number."""
    last = probabilities_RV.shape[-1] - 1
    if probabilities_RV.is_cuda:
        return _by_blocks(in_shares(probabilities_RV), uniforms_R).clamp(max=last)
    cumulative = probabilities_RV.cumsum(-1)
    threshold = uniforms_R.unsqueeze(-1) * cumulative[:, -1:]
    return (cumulative <= threshold).sum(-1).clamp(max=last)


def _by_blocks(shares_RV: Tensor, uniforms_R: Tensor) -> Tensor:
    """`inverse_cdf` of whole numbers: the block of tokens in which the threshold lies, then the token in it.

    A running sum over the vocabulary would read and write 8 bytes a token twice more. Whole numbers have the same sums in blocks.
    """
    block = math.gcd(shares_RV.shape[-1], BLOCK_TOKENS)
    if block < FEWEST_TOKENS:  # a copy, which the vocabularies of published models do not need
        block, shares_RV = BLOCK_TOKENS, F.pad(shares_RV, (0, -shares_RV.shape[-1] % BLOCK_TOKENS))
    shares_RBb = shares_RV.unflatten(-1, (-1, block))
    ends_RB = shares_RBb.sum(-1).cumsum(-1)
    threshold_R1 = (uniforms_R.double().unsqueeze(-1) * ends_RB[:, -1:]).long()
    block_R1 = (ends_RB <= threshold_R1).sum(-1, keepdim=True).clamp(max=ends_RB.shape[-1] - 1)
    own_Rb = shares_RBb.gather(1, block_R1.unsqueeze(-1).expand(-1, -1, block)).squeeze(1)
    before_R1 = ends_RB.gather(1, block_R1) - own_Rb.sum(-1, keepdim=True)
    return block_R1.squeeze(1) * block + (own_Rb.cumsum(-1) + before_R1 <= threshold_R1).sum(-1)
