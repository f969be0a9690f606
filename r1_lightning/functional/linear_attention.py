"""Linear attention with a decay per head, computed block by block (MiniMax-01, arXiv:2501.08313, section 2.2, Algorithm 1).

Without a softmax, attention's products are associative: (Q K^T) V = Q (K^T V). So one H x H matrix per head, the state

    S_t = exp(-s) S_{t-1} + k_t v_t^T,    o_t = q_t S_t        (eq 5, with a decay)

holds everything that a query needs of the past, and its size does not grow. A loop over tokens trains slowly, so a row is cut into
blocks: within a block attention scores are computed as usual (eq 4), the state stands for everything before the block, and the work
per token hardly depends on the length of the row.

The paper prints no decay: its mask M is 0 or 1. The published code weights a key that lies d tokens back by exp(-s d), with a
slope s for every head. Slopes close to 0 give the paper's equations.

Packed rows: a state must neither cross a document border nor count padding. Distances express both: for every (query, key) pair
that the blocks need, `BlockPlan` holds the number of tokens between the two, or infinity if the query may not see the key, whose
weight is then exactly exp(-inf) = 0. The plan depends on the batch alone and is computed once for all layers.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

# Shape legend: B rows, T positions, N heads, H head width, C blocks of a row, G = C + 1 places
# between blocks, t and j positions within a block (query and key).


class BlockPlan(NamedTuple):
    """Distances in tokens between two positions (FP32), inf if the later one may not see the earlier one.

    `inside` B x C x t x j, from key to query of a block; `before` B x C x t, from the end of the block before to a query;
    `after` B x C x j, from a key to the end of its block; `across` B x G x G, between the ends of blocks, the start of the row
    being the first of these G = C + 1 places.
    """

    inside: Tensor
    before: Tensor
    after: Tensor
    across: Tensor


def document_segments(document_ids_BT: Int[Tensor, "B T"]) -> Int[Tensor, "B T"]:
    """Number the documents of each row 0, 1, ... in order, whatever their ids: the count of borders before each position."""
    return F.pad(document_ids_BT[:, 1:] != document_ids_BT[:, :-1], (1, 0)).long().cumsum(1)


def block_length(length: int, most_block_tokens: int) -> int:
    """Return the length of a row's blocks: as few blocks as possible, all of one length, so that little is padded.

    Example: 81 tokens in blocks of at most 64 make two blocks of 41, with 1 position padded; two blocks of 64 would pad 47.
    """
    n_blocks = -(-length // most_block_tokens)
    return -(-length // n_blocks)


def block_plan(segments_BT: Int[Tensor, "B T"], is_token_BT: Bool[Tensor, "B T"], most_block_tokens: int) -> BlockPlan:
    """Return the `BlockPlan` of rows with these `segments` (documents), in blocks of at most `most_block_tokens`.

    A state that enters the rows belongs to segment 0. Padding (`is_token` False) is not seen, sees nothing (its output is 0), and
    does not count towards distances.

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

    From MiniMax's published code; the paper has no equation for it. Of 8 heads the first decays by exp(-1/2) per token in the
    first layer, the last by exp(-1/256); deeper layers decay more slowly in every head.
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
    """Return outputs B x T x N x H and the state B x N x H x H (key by value, at least FP32) after the last token.

    o_t = sum of exp(-s (tokens from j to t)) (q_t k_j) v_j over the j <= t that t sees, plus the contribution of `state` (None:
    empty), whose tokens lie before the row. `slopes` must be above 0. Algorithm 1 of MiniMax-01 with the decay of its code; a
    single position, as in sampling, uses eq 5 directly.
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
    """Return the states that enter each block, B x N x C x H x H, and the state after the last; G = C + 1 places between blocks.

    S_g = sum over h <= g of decay_gh A_h, where A_0 is the state before the row and A_h the contribution of block h: one small
    matrix product instead of a loop over blocks, for which torch.compile would make one graph per number of blocks. Its work is the
    only one to grow with the square of the row length, as (T / T_block)^2: at 4,096 tokens, blocks of 64 and head width 64, it is a
    fifth of the total. FP32, because these are sums over the whole text.
    """
    with torch.autocast(state_BNHH.device.type, enabled=False):
        added_BNG = torch.cat([state_BNHH.unsqueeze(2), added_BNCHH.to(state_BNHH.dtype)], 2).flatten(3)
        entering = decay_BNGG[:, :, :-1] @ added_BNG
        last = decay_BNGG[:, :, -1:] @ added_BNG
    return entering.view_as(added_BNCHH), last.view_as(state_BNHH)


def _next_position(
    q_B1NH: Tensor, k_B1NH: Tensor, v_B1NH: Tensor, slopes_N: Tensor, plan: BlockPlan, state_BNHH: Tensor
) -> tuple[Tensor, Tensor]:
    """One step of eq 5 with the decay. A position's distance to itself is 0 for a token and inf for padding: factors 1 and 0."""
    is_token_B1 = torch.exp(-plan.inside[:, 0, 0])
    kept_BN = torch.exp(-slopes_N * plan.across[:, 1, :1])
    key_BNH1 = (k_B1NH[:, 0] * is_token_B1[..., None]).unsqueeze(-1).to(state_BNHH.dtype)
    value_BN1H = v_B1NH[:, 0].unsqueeze(-2).to(state_BNHH.dtype)
    state_BNHH = torch.addcmul(kept_BN[..., None, None] * state_BNHH, key_BNH1, value_BN1H)
    query_BN1H = (q_B1NH[:, 0] * is_token_B1[..., None]).unsqueeze(-2)
    return (query_BN1H @ state_BNHH).transpose(1, 2), state_BNHH


def _in_blocks(x_BTNH: Tensor, n_blocks: int, block: int) -> Tensor:
    """Reshape B x T x N x H to B x N x C x block x H; zeros pad the last block, and the plan masks them."""
    filling = n_blocks * block - x_BTNH.shape[1]
    x_BTNH = F.pad(x_BTNH, (0, 0, 0, 0, 0, filling)) if filling else x_BTNH
    return x_BTNH.unflatten(1, (n_blocks, block)).permute(0, 3, 1, 2, 4).contiguous()  # once, not in every product
