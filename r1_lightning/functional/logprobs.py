"""Log-probabilities of given tokens under softmax(logits / sampling_temperature), in nats, from logits or without them.

Everywhere in this project a policy's log-probs are those of softmax(logits / sampling_temperature): in the sampler, in the
training forward, and for the reference. Top-p changes which tokens are drawn, never these numbers.

Logits are the largest tensor of a step: 8 x 1,024 tokens times 129,280 entries are 4.2 GB in FP32, and softmax and its gradient
take as much again each. So `linear_token_logprobs` starts from hidden states and head, iterates over tiles of (tokens x
vocabulary) with a running maximum and sum ("online softmax"), and recomputes each tile in backward. It keeps one number per token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

# Shape legend: N tokens, V vocabulary, D model width, n and v the tokens and entries of a tile.

# A tile of 1,024 tokens times 16,384 entries holds 64 MB of FP32 logits: small beside any head that needs tiles at all, and
# large enough for its products to run at full speed.
TILE_TOKENS = 1024
TILE_VOCABULARY = 16_384
# On a CPU a wider vocabulary comes in tiles of 4 MB, which the cores' own caches hold: over a tile of 64 MB the passes of a
# softmax wait for memory.
CPU_TILE_VOCABULARY = 1024


def token_logprobs(
    logits_NV: Float[Tensor, "*N V"], targets_N: Int[Tensor, "*N"], sampling_temperature: float
) -> Float[Tensor, "*N"]:
    """log softmax(logits / sampling_temperature)[target], ... x V and ... to ... (FP32)."""
    scaled = logits_NV.float() / sampling_temperature
    chosen = scaled.gather(-1, targets_N.unsqueeze(-1)).squeeze(-1)
    return chosen - scaled.logsumexp(-1)


@torch.no_grad()
def entropy(logits_NV: Float[Tensor, "*N V"], sampling_temperature: float) -> Float[Tensor, "*N"]:
    """Entropy of softmax(logits / sampling_temperature) per token, in nats: between 0 and ln V."""
    logprobs = (logits_NV.float() / sampling_temperature).log_softmax(-1)
    return -(logprobs.exp() * logprobs).sum(-1)


class Tiles(NamedTuple):
    """The arithmetic of one tile, forward and backward: `EAGER_TILES`, or the same two functions compiled."""

    forward: Callable[..., tuple[Tensor, ...]]
    backward: Callable[..., tuple[Tensor, Tensor]]


def _tile_forward(
    hidden_nD: Tensor, head_vD: Tensor, targets_n: Tensor, temperature: float, sums: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """Add one tile of the vocabulary to `sums`: the targets' logits, the running maximum, sum e^(z - max) and sum e^(z - max) z.

    `targets_n` are relative to the tile's first vocabulary entry, and may lie outside the tile.
    """
    chosen, largest, total, weighted = sums
    logits = _tile_logits(hidden_nD, head_vD, temperature)
    inside = (targets_n >= 0) & (targets_n < logits.shape[1])
    found = logits.gather(1, targets_n.clamp(0, logits.shape[1] - 1).unsqueeze(1)).squeeze(1)
    chosen = chosen + found * inside
    before, largest = largest, torch.maximum(largest, logits.amax(1))
    shrink = (before - largest).exp()
    powers = (logits - largest.unsqueeze(1)).exp_()
    weighted = weighted * shrink + torch.linalg.vecdot(powers, logits)
    return chosen, largest, total * shrink + powers.sum(1), weighted


def _tile_backward(
    hidden_nD: Tensor, head_vD: Tensor, targets_n: Tensor, temperature: float, log_sum_n: Tensor, scaled_n: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the tile's gradients for hidden states and head rows, from d log p_y / d z_i = ([i = y] - p_i) / temperature."""
    logits = _tile_logits(hidden_nD, head_vD, temperature)
    slope = logits.sub_(log_sum_n.unsqueeze(1)).exp_().mul_(-scaled_n.unsqueeze(1))
    inside = (targets_n >= 0) & (targets_n < slope.shape[1])
    slope.scatter_add_(1, targets_n.clamp(0, slope.shape[1] - 1).unsqueeze(1), (scaled_n * inside).unsqueeze(1))
    slope = slope.to(head_vD.dtype)
    return slope @ head_vD, slope.T @ hidden_nD.to(head_vD.dtype)


EAGER_TILES = Tiles(_tile_forward, _tile_backward)


def linear_token_logprobs(
    hidden_ND: Float[Tensor, "N D"],
    head_VD: Float[Tensor, "V D"],
    targets_N: Int[Tensor, "N"],
    sampling_temperature: float = 1.0,
    tiles: Tiles = EAGER_TILES,
) -> tuple[Float[Tensor, "N"], Float[Tensor, "N"]]:
    """Return `token_logprobs` and `entropy` of the logits hidden head^T, without ever holding all of the logits.

    Products run in the type of `head_VD`, sums in FP32. Gradients flow from the log-probs into hidden states and head; the
    entropy has none.
    """
    logprobs, entropies = _LinearTokenLogprobs.apply(hidden_ND, head_VD, targets_N, sampling_temperature, tiles)
    return logprobs, entropies


@torch.no_grad()
def linear_argmax(hidden_ND: Float[Tensor, "N D"], head_VD: Float[Tensor, "V D"]) -> Int[Tensor, "N"]:
    """Return the likeliest token of each of the logits hidden head^T, the first of equals, tile by tile."""
    likeliest_N = torch.zeros(len(hidden_ND), dtype=torch.long, device=hidden_ND.device)
    for rows, columns in _tiles(hidden_ND, len(head_VD)):
        largest = hidden_ND.new_full((rows.stop - rows.start,), -torch.inf, dtype=torch.float32)
        for entries in columns:
            found, place = _tile_logits(hidden_ND[rows], head_VD[entries], 1.0).max(1)
            likeliest_N[rows] = torch.where(found > largest, entries.start + place, likeliest_N[rows])
            largest = torch.maximum(largest, found)
    return likeliest_N


def tile_shape(n_tokens: int, vocabulary: int, device_type: str) -> tuple[int, int]:
    """Return (tokens, vocabulary entries) of the largest tile; the smaller the vocabulary, the more tokens fit one tile."""
    is_cut = device_type == "cpu" and vocabulary > CPU_TILE_VOCABULARY
    widest = CPU_TILE_VOCABULARY if is_cut else TILE_VOCABULARY
    width = min(vocabulary, widest)
    return min(n_tokens, TILE_TOKENS * widest // width), width


def _tiles(hidden_ND: Tensor, vocabulary: int) -> Iterator[tuple[slice, list[slice]]]:
    """Yield slices of tokens, each with all slices of the vocabulary."""
    n_tokens = len(hidden_ND)
    height, width = tile_shape(max(n_tokens, 1), vocabulary, hidden_ND.device.type)
    columns = [slice(start, min(start + width, vocabulary)) for start in range(0, vocabulary, width)]
    for start in range(0, n_tokens, height):
        yield slice(start, min(start + height, n_tokens)), columns


def _tile_logits(hidden_nD: Tensor, head_vD: Tensor, sampling_temperature: float) -> Tensor:
    logits_nv = (hidden_nD.to(head_vD.dtype) @ head_vD.T).float()
    return logits_nv if sampling_temperature == 1 else logits_nv.div_(sampling_temperature)


class _LinearTokenLogprobs(torch.autograd.Function):
    """Forward and backward of `linear_token_logprobs`, tile by tile."""

    @staticmethod
    def forward(
        ctx: Any, hidden_ND: Tensor, head_VD: Tensor, targets_N: Tensor, sampling_temperature: float, tiles: Tiles
    ) -> tuple[Tensor, Tensor]:
        numbers = hidden_ND.new_zeros((3, len(hidden_ND)), dtype=torch.float32)
        chosen_N, log_sum_N, entropy_N = numbers
        for rows, columns in _tiles(hidden_ND, len(head_VD)):
            zeros = numbers.new_zeros(rows.stop - rows.start)
            sums: tuple[Tensor, ...] = (zeros, torch.full_like(zeros, -torch.inf), zeros, zeros)
            for entries in columns:
                targets_n = targets_N[rows] - entries.start
                sums = tiles.forward(hidden_ND[rows], head_VD[entries], targets_n, sampling_temperature, sums)
            chosen_N[rows], largest, total, weighted = sums
            log_sum_N[rows] = largest + total.log()
            entropy_N[rows] = log_sum_N[rows] - weighted / total
        ctx.save_for_backward(hidden_ND, head_VD, targets_N, log_sum_N)
        ctx.sampling_temperature, ctx.tiles = sampling_temperature, tiles
        entropy_N = entropy_N.clone()  # memory of its own, not a view of `numbers`, which backward keeps
        ctx.mark_non_differentiable(entropy_N)
        return chosen_N - log_sum_N, entropy_N

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        hidden_ND, head_VD, targets_N, log_sum_N = ctx.saved_tensors
        temperature = ctx.sampling_temperature
        scaled_N = gradients[0] / temperature
        hidden_gradient = torch.zeros_like(hidden_ND, dtype=torch.float32)
        head_gradient = torch.zeros_like(head_VD, dtype=torch.float32)
        for rows, columns in _tiles(hidden_ND, len(head_VD)):
            for entries in columns:
                targets_n = targets_N[rows] - entries.start
                numbers = (targets_n, temperature, log_sum_N[rows], scaled_N[rows])
                by_hidden, by_head = ctx.tiles.backward(hidden_ND[rows], head_VD[entries], *numbers)
                hidden_gradient[rows] += by_hidden
                head_gradient[entries] += by_head
        return hidden_gradient.to(hidden_ND.dtype), head_gradient.to(head_VD.dtype), None, None, None
