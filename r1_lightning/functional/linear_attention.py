"""Linear attention with a decay per head, computed block by block (MiniMax-01, arXiv:2501.08313, section 2.2, Algorithm 1).

Without a softmax the products of attention may be bracketed the other way round: (Q K^T) V = Q (K^T V). All that the past
means to a query is then one H x H matrix per head, the state

    S_t = exp(-s) S_{t-1} + k_t v_t^T,    o_t = q_t S_t        (eq 5, with a decay)

whose size does not grow. Token by token that is slow to train, so a row is cut into blocks: within a block the scores are made
as ever (eq 4), what lies before it comes from the state, and the work per token does not depend on the length of the row.

The paper prints no decay: its mask M is 0 or 1. The published code weighs a key that lies d tokens back by exp(-s d), with a
slope s for every head. Slopes close to 0 give the paper's equations.

Packed rows: a state must not cross the border of a document, nor know of padding. Both are said by distances: `BlockPlan` holds
for every pair that the blocks need how many tokens lie between the two, and infinity where the later may not see the earlier,
whose weight is then exactly exp(-inf) = 0. It depends on the batch alone and is made once for all layers.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

# Shape legend: B rows, T positions, N heads, H head width, C blocks of a row, t and j places within a block (query and key).


class BlockPlan(NamedTuple):
    """Tokens between two places, inf where the later one may not see the earlier one (FP32).

    `inside` B x C x t x j, from key to query of a block; `before` B x C x t, from the end of the block before to a query;
    `after` B x C x j, from a key to the end of its block; `across` B x C, from one block's end to the next.
    """

    inside: Tensor
    before: Tensor
    after: Tensor
    across: Tensor


def document_segments(document_ids_BT: Int[Tensor, "B T"]) -> Int[Tensor, "B T"]:
    """How many borders lie before each place: 0 for the first document of a row, whatever its id, and growing."""
    return F.pad(document_ids_BT[:, 1:] != document_ids_BT[:, :-1], (1, 0)).long().cumsum(1)


def block_plan(segments_BT: Int[Tensor, "B T"], is_token_BT: Bool[Tensor, "B T"], most_block_tokens: int) -> BlockPlan:
    """The plan of rows whose `segments` belong together, in blocks of `most_block_tokens`, or of T where that is less.

    A state that enters the rows belongs to segment 0. Padding (`is_token` False) is not seen, sees nothing (its output is 0),
    and lets no time pass: a distance counts the tokens in between.

    Example: block_plan([[0, 0, 1]], all tokens, 3) has `inside` [[0, inf, inf], [1, 0, inf], [inf, inf, 0]], `before`
    [1, 2, inf], `after` [inf, inf, 0] and `across` inf: the first segment ends within the block.
    """
    length = segments_BT.shape[1]
    block = min(most_block_tokens, length)
    filling = -length % block
    segments = torch.cat([segments_BT, segments_BT[:, -1:].expand(-1, filling)], 1).unflatten(1, (-1, block))
    seen = F.pad(is_token_BT, (0, filling))
    count = seen.cumsum(1).float().unflatten(1, (-1, block))  # exact up to 2^24 tokens
    seen = seen.unflatten(1, (-1, block))
    end, end_segment = count[..., -1], segments[..., -1]
    start, start_segment = F.pad(end[:, :-1], (1, 0)), F.pad(end_segment[:, :-1], (1, 0))
    causal_tj = torch.ones(block, block, dtype=torch.bool, device=seen.device).tril()
    visible = (segments[..., :, None] == segments[..., None, :]) & seen[..., :, None] & seen[..., None, :] & causal_tj
    return BlockPlan(
        _tokens(count[..., :, None] - count[..., None, :], visible),
        _tokens(count - start[..., None], (segments == start_segment[..., None]) & seen),
        _tokens(end[..., None] - count, (segments == end_segment[..., None]) & seen),
        _tokens(end - start, end_segment == start_segment),
    )


def _tokens(distance: Tensor, is_visible: Tensor) -> Tensor:
    return distance.masked_fill(~is_visible, float("inf"))


def decay_slopes(n_heads: int, layer: int, n_layers: int) -> Float[Tensor, "N"]:
    """s_h = 2^(-8 h / N) (1 - l / (L - 1 + 1e-5) + 1e-5) for heads h = 1 .. N of layer l = 0 .. L - 1; FP32, above 0.

    From MiniMax's published code; the paper has no equation for it. Of 8 heads the first forgets with exp(-1/2) per token in the
    first layer, the last with exp(-1/256), and the deeper the layer, the longer all of them remember.
    """
    heads = torch.arange(1, n_heads + 1, dtype=torch.float32)
    return 2.0 ** (-8.0 * heads / n_heads) * (1.0 - layer / (n_layers - 1 + 1e-5) + 1e-5)


def linear_attention(
    q_BTNH: Float[Tensor, "B T N H"],
    k_BTNH: Float[Tensor, "B T N H"],
    v_BTNH: Float[Tensor, "B T N H"],
    slopes_N: Float[Tensor, "N"],
    plan: BlockPlan,
    state_BNHH: Float[Tensor, "B N H H"] | None = None,
) -> tuple[Float[Tensor, "B T N H"], Float[Tensor, "B N H H"]]:
    """Outputs B x T x N x H and the state B x N x H x H (key by value, at least FP32) after the last token.

    o_t = sum over j <= t that t sees of exp(-s (tokens from j to t)) (q_t k_j) v_j, and of `state`, None for an empty one, as if
    all its tokens lay before the row. `slopes` must be above 0. Algorithm 1 of MiniMax-01 with the decay of its code; a single
    position, as in sampling, takes eq 5 as it stands.
    """
    length, (n_blocks, block) = q_BTNH.shape[1], plan.before.shape[1:]
    if length == 1 and state_BNHH is not None:
        return _next_position(q_BTNH, k_BTNH, v_BTNH, slopes_N, plan, state_BNHH)
    q, k, v = (_in_blocks(x, n_blocks, block) for x in (q_BTNH, k_BTNH, v_BTNH))
    slopes_N11 = slopes_N[:, None, None]
    inside, before, after = (
        torch.exp(-slopes_N11 * distance.unsqueeze(2))
        for distance in (plan.inside, plan.before.unsqueeze(-1), plan.after.unsqueeze(-1))
    )
    kept_BCN11 = torch.exp(-slopes_N11 * plan.across[:, :, None, None, None])
    added_BCNHH = (k * after).mT @ v
    state = q.new_zeros(added_BCNHH[:, 0].shape, dtype=inside.dtype) if state_BNHH is None else state_BNHH
    entering = []
    for c in range(n_blocks):
        entering.append(state)
        state = kept_BCN11[:, c] * state + added_BCNHH[:, c]
    o = ((q @ k.mT) * inside) @ v + (q * before) @ torch.stack(entering, 1)
    return o.transpose(2, 3).flatten(1, 2)[:, :length], state


def _next_position(
    q_B1NH: Tensor, k_B1NH: Tensor, v_B1NH: Tensor, slopes_N: Tensor, plan: BlockPlan, state_BNHH: Tensor
) -> tuple[Tensor, Tensor]:
    """Eq 5 with the decay. The distances of one place to itself are 0 for a token and inf for padding: factors of 1 and 0."""
    is_token_B1 = torch.exp(-plan.inside[:, 0, 0])
    kept_BN = torch.exp(-slopes_N * plan.across)
    key_BNH1 = (k_B1NH[:, 0] * is_token_B1[..., None]).unsqueeze(-1).to(state_BNHH.dtype)
    value_BN1H = v_B1NH[:, 0].unsqueeze(-2).to(state_BNHH.dtype)
    state_BNHH = torch.addcmul(kept_BN[..., None, None] * state_BNHH, key_BNH1, value_BN1H)
    query_BN1H = (q_B1NH[:, 0] * is_token_B1[..., None]).unsqueeze(-2)
    return (query_BN1H @ state_BNHH).transpose(1, 2), state_BNHH


def _in_blocks(x_BTNH: Tensor, n_blocks: int, block: int) -> Tensor:
    """B x T x N x H to B x C x N x block x H, the last block filled up with zeros, which the plan does not let anybody see."""
    filling = n_blocks * block - x_BTNH.shape[1]
    x_BTNH = F.pad(x_BTNH, (0, 0, 0, 0, 0, filling)) if filling else x_BTNH
    return x_BTNH.unflatten(1, (n_blocks, block)).transpose(2, 3).contiguous()  # once, not in every product
