"""Linear attention with a decay per head, computed block by block (MiniMax-01, arXiv:2501.08313, section 2.2, Algorithm 1).

Without a softmax the products of attention may be bracketed the other way round: (Q K^T) V = Q (K^T V). All that the past
means to a query is then one H x H matrix per head, the state

    S_t = exp(-s) S_{t-1} + k_t v_t^T,    o_t = q_t S_t        (eq 5, with a decay)

whose size does not grow. Token by token that is slow to train, so a row is cut into blocks: within a block the scores are made
as ever (eq 4), what lies before it comes from the state, and the work per token hardly depends on the length of the row.

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

# Shape legend: B rows, T positions, N heads, H head width, C blocks of a row, G = C + 1 places
# between blocks, t and j places within a block (query and key).


class BlockPlan(NamedTuple):
    """Tokens between two places, inf where the later one may not see the earlier one (FP32).

    `inside` B x C x t x j, from key to query of a block; `before` B x C x t, from the end of the block before to a query;
    `after` B x C x j, from a key to the end of its block; `across` B x G x G, between the ends of blocks, the start of the row
    being the first of these G = C + 1 places.
    """

    inside: Tensor
    before: Tensor
    after: Tensor
    across: Tensor


def document_segments(document_ids_BT: Int[Tensor, "B T"]) -> Int[Tensor, "B T"]:
    """How many borders lie before each place: 0 for the first document of a row, whatever its id, and growing."""
    return F.pad(document_ids_BT[:, 1:] != document_ids_BT[:, :-1], (1, 0)).long().cumsum(1)


def block_length(length: int, most_block_tokens: int) -> int:
    """The length of a row's blocks: as few as may be and all alike, so that little is filled up.

    Example: 81 tokens in blocks of at most 64 are two blocks of 41, which leave one place empty; two of 64 would leave 47.
    """
    n_blocks = -(-length // most_block_tokens)
    return -(-length // n_blocks)


def block_plan(segments_BT: Int[Tensor, "B T"], is_token_BT: Bool[Tensor, "B T"], most_block_tokens: int) -> BlockPlan:
    """The plan of rows whose `segments` belong together, in blocks of at most `most_block_tokens` (see `block_length`).

    A state that enters the rows belongs to segment 0. Padding (`is_token` False) is not seen, sees nothing (its output is 0),
    and lets no time pass: a distance counts the tokens in between.

    Example: block_plan([[0, 0, 1]], all tokens, 3) has `inside` [[0, inf, inf], [1, 0, inf], [inf, inf, 0]], `before`
    [1, 2, inf], `after` [inf, inf, 0] and `across` [[0, inf], [inf, 0]]: the first segment ends within the block.
    """
    length = segments_BT.shape[1]
    block = block_length(length, most_block_tokens)
    filling = -length % block
    segments = torch.cat([segments_BT, segments_BT[:, -1:].expand(-1, filling)], 1).unflatten(1, (-1, block))
    seen = F.pad(is_token_BT, (0, filling))
    count = seen.cumsum(1).float().unflatten(1, (-1, block))  # exact up to 2^24 tokens
    seen = seen.unflatten(1, (-1, block))
    place, place_segment = F.pad(count[..., -1], (1, 0)), F.pad(segments[..., -1], (1, 0))
    start, start_segment = place[:, :-1, None], place_segment[:, :-1, None]
    end, end_segment = place[:, 1:, None], place_segment[:, 1:, None]
    causal_tj = torch.ones(block, block, dtype=torch.bool, device=seen.device).tril()
    causal_GG = torch.ones(place.shape[1], place.shape[1], dtype=torch.bool, device=seen.device).tril()
    visible = (segments[..., :, None] == segments[..., None, :]) & seen[..., :, None] & seen[..., None, :] & causal_tj
    return BlockPlan(
        _tokens(count[..., :, None] - count[..., None, :], visible),
        _tokens(count - start, (segments == start_segment) & seen),
        _tokens(end - count, (segments == end_segment) & seen),
        _tokens(
            place[:, :, None] - place[:, None, :], (place_segment[:, :, None] == place_segment[:, None]) & causal_GG
        ),
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
    slopes_N111 = slopes_N[:, None, None, None]
    inside, before, after, across = (
        torch.exp(-slopes_N111 * distance.unsqueeze(1))
        for distance in (plan.inside, plan.before.unsqueeze(-1), plan.after.unsqueeze(-1), plan.across.unsqueeze(1))
    )
    added_BNCHH = (k * after).mT @ v
    empty = q.new_zeros(added_BNCHH[:, :, 0].shape, dtype=inside.dtype)
    entering_BNCHH, state_BNHH = _states(empty if state_BNHH is None else state_BNHH, added_BNCHH, across[:, :, 0])
    o = ((q @ k.mT) * inside) @ v + (q * before) @ entering_BNCHH
    return o.flatten(2, 3)[:, :, :length].transpose(1, 2), state_BNHH


def _states(state_BNHH: Tensor, added_BNCHH: Tensor, decay_BNGG: Tensor) -> tuple[Tensor, Tensor]:
    """The states that enter each block, B x N x C x H x H, and the one after the last; G = C + 1 places between blocks.

    S_g = sum over h <= g of decay_gh A_h, where A_0 is the state before the row and A_h what block h adds: one product of small
    matrices in place of a loop over blocks, of which a compiler would make another graph for every number of blocks. It is the
    one part whose work grows with the square of the row, though only with (T / T_block)^2: at 4,096 tokens, in blocks of 64 and
    with heads as wide, it is a fifth of the whole. In FP32: these are sums over the whole text.
    """
    with torch.autocast(state_BNHH.device.type, enabled=False):
        added_BNG = torch.cat([state_BNHH.unsqueeze(2), added_BNCHH.to(state_BNHH.dtype)], 2).flatten(3)
        entering = decay_BNGG[:, :, :-1] @ added_BNG
        last = decay_BNGG[:, :, -1:] @ added_BNG
    return entering.view_as(added_BNCHH), last.view_as(state_BNHH)


def _next_position(
    q_B1NH: Tensor, k_B1NH: Tensor, v_B1NH: Tensor, slopes_N: Tensor, plan: BlockPlan, state_BNHH: Tensor
) -> tuple[Tensor, Tensor]:
    """Eq 5 with the decay. The distances of one place to itself are 0 for a token and inf for padding: factors of 1 and 0."""
    is_token_B1 = torch.exp(-plan.inside[:, 0, 0])
    kept_BN = torch.exp(-slopes_N * plan.across[:, 1, :1])
    key_BNH1 = (k_B1NH[:, 0] * is_token_B1[..., None]).unsqueeze(-1).to(state_BNHH.dtype)
    value_BN1H = v_B1NH[:, 0].unsqueeze(-2).to(state_BNHH.dtype)
    state_BNHH = torch.addcmul(kept_BN[..., None, None] * state_BNHH, key_BNH1, value_BN1H)
    query_BN1H = (q_B1NH[:, 0] * is_token_B1[..., None]).unsqueeze(-2)
    return (query_BN1H @ state_BNHH).transpose(1, 2), state_BNHH


def _in_blocks(x_BTNH: Tensor, n_blocks: int, block: int) -> Tensor:
    """B x T x N x H to B x N x C x block x H, the last block filled up with zeros, which the plan does not let anybody see."""
    filling = n_blocks * block - x_BTNH.shape[1]
    x_BTNH = F.pad(x_BTNH, (0, 0, 0, 0, 0, filling)) if filling else x_BTNH
    return x_BTNH.unflatten(1, (n_blocks, block)).permute(0, 3, 1, 2, 4).contiguous()  # once, not in every product
