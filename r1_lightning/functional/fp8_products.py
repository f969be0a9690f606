"""Matrix products from operands in FP8, forward and backward, as DeepSeek-V3 trains its linear layers (V3 section 3.3, figure 6).

A linear layer y = x W^T multiplies three times, and each time both operands are in E4M3, cut into tiles along the summed dimension:

    forward          y  = x W^T     x in tiles of 1 x 128 (a token's channels), W in blocks of 128 x 128
    input gradient   dx = dy W      dy in tiles of 1 x 128, W in the same blocks
    weight gradient  dW = dy^T x    dy and x in tiles of 128 x 1 (a channel of 128 tokens), cut from the exact tensors

Sums are FP32; y and dx leave in the type of x, dW in FP32. A kernel on a GPU multiplies the bytes (`Recipe.multiply`); without one
they become FP32 first, which gives the same products: two numbers with 4 bits of significand multiply exactly. What a GPU's tensor
cores lose in adding (about 14 bits are kept between promotions to FP32, V3 section 3.3.2) is not imitated.

For the backward the forward keeps x in FP8 (`COLUMN_TILE`), a quarter of its bytes in FP32, and nothing of the weight, which is cut
into blocks again. The grouped form serves experts: rows are sorted by expert, and no tile of 128 x 1 holds rows of two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from r1_lightning.functional.fp8_tiles import BLOCK, COLUMN_TILE, ROW_TILE, TILE, Quantised, quantise

# Shape legend: N rows (tokens), I input width, O output width, E experts, L tiles of 128 rows.


def multiply_dequantised(left: Quantised, right: Quantised, dtype: torch.dtype) -> Tensor:
    """Return left right^T in `dtype`, of M x K and N x K, as FP32 products of the numbers that the bytes stand for."""
    return (left.dequantise() @ right.dequantise().T).to(dtype)


@dataclass(frozen=True)
class Recipe:
    """How operands are cut, and what multiplies them.

    `power_of_two`: scales are powers of two, as Transformer Engine has them, else FP32 numbers. `gradient_blocks`: dy of the input
    gradient is cut into blocks of 128 x 128; with it a model of 16 B parameters diverged (V3 appendix B.2). `multiply` takes
    operands M x K in tiles of 1 x 128, and N x K in the same or in blocks, and a type; it returns M x N.
    """

    power_of_two: bool = True
    gradient_blocks: bool = False
    multiply: Callable[[Quantised, Quantised, torch.dtype], Tensor] = multiply_dequantised

    def cut(self, x_RC: Tensor, tile: tuple[int, int]) -> Quantised:
        return quantise(x_RC, tile, self.power_of_two)


def rounded(x_RC: Tensor, tile: tuple[int, int], recipe: Recipe) -> Tensor:
    """Return the FP32 numbers that `x_RC` has in FP8."""
    return recipe.cut(x_RC, tile).dequantise()


def rounded_experts(weight_EIO: Tensor, recipe: Recipe) -> Tensor:
    """`rounded` for the matrix of every expert, in blocks; no block holds numbers of two experts."""
    n_experts, rows, _ = weight_EIO.shape
    padded = F.pad(weight_EIO, (0, 0, 0, -rows % TILE)).flatten(0, 1)
    return rounded(padded, BLOCK, recipe).unflatten(0, (n_experts, -1))[:, :rows]


def linear(x_NI: Tensor, weight_OI: Tensor, recipe: Recipe = Recipe()) -> Tensor:
    """Return x W^T, N x O in the type of `x_NI`; with gradients as above."""
    if torch.is_grad_enabled():
        product: Tensor = _Linear.apply(x_NI, weight_OI, recipe)
        return product
    return linear_by(x_NI, recipe.cut(weight_OI, BLOCK), recipe)


def linear_by(x_NI: Tensor, weight_OI: Quantised, recipe: Recipe = Recipe()) -> Tensor:
    """`linear` without gradients, by a weight that is in FP8 already."""
    with _exact(x_NI):
        return recipe.multiply(recipe.cut(x_NI, ROW_TILE), weight_OI, x_NI.dtype)


def grouped_linear(x_NI: Tensor, weight_EIO: Tensor, ends_E: Tensor, recipe: Recipe = Recipe()) -> Tensor:
    """Return each row times its expert's matrix, N x O in the type of `x_NI`; rows of expert e are ends[e-1]:ends[e] (int32)."""
    if torch.is_grad_enabled():
        product: Tensor = _GroupedLinear.apply(x_NI, weight_EIO, ends_E, recipe)
        return product
    return grouped_linear_by(x_NI, rounded_experts(weight_EIO, recipe), ends_E, recipe)


def grouped_linear_by(x_NI: Tensor, rounded_EIO: Tensor, ends_E: Tensor, recipe: Recipe = Recipe()) -> Tensor:
    """`grouped_linear` without gradients, by the numbers that the experts' matrices have in FP8."""
    with _exact(x_NI):
        return F.grouped_mm(rounded(x_NI, ROW_TILE, recipe), rounded_EIO, offs=ends_E).to(x_NI.dtype)


def one_by_one(x_NI: Tensor, weight_EIO: Tensor, ends_E: Tensor, recipe: Recipe = Recipe()) -> Tensor:
    """`grouped_linear` as a `linear` for each expert, for a `Recipe.multiply` that knows single matrices only."""
    pieces = zip(x_NI.split(_counts(ends_E)), weight_EIO, strict=True)
    return torch.cat(
        [linear(x, weight.T.contiguous(), recipe) if len(x) else x @ weight.to(x.dtype) for x, weight in pieces]
    )


def one_by_one_by(x_NI: Tensor, weights_OI: Sequence[Quantised], ends_E: Tensor, recipe: Recipe = Recipe()) -> Tensor:
    """`one_by_one` without gradients, by experts' matrices, O x I each, that are in FP8 already."""
    pieces = zip(x_NI.split(_counts(ends_E)), weights_OI, strict=True)
    width = len(weights_OI[0].values)
    return torch.cat([linear_by(x, weight, recipe) if len(x) else x.new_empty(0, width) for x, weight in pieces])


def _counts(ends_E: Tensor) -> list[int]:
    counts: list[int] = ends_E.diff(prepend=ends_E.new_zeros(1)).tolist()
    return counts


def _exact(x: Tensor) -> AbstractContextManager[Any]:
    """Products of FP32 inside are FP32, whatever autocast says outside."""
    return torch.autocast(x.device.type, enabled=False)


class _Linear(torch.autograd.Function):
    """N x I times the transpose of O x I."""

    @staticmethod
    def forward(ctx: Any, x_NI: Tensor, weight_OI: Tensor, recipe: Recipe) -> Tensor:
        ctx.recipe, ctx.dtype = recipe, x_NI.dtype
        with _exact(x_NI):
            kept = recipe.cut(x_NI, COLUMN_TILE) if ctx.needs_input_grad[1] else None
            ctx.save_for_backward(weight_OI, *_parts(kept))
        return linear_by(x_NI, recipe.cut(weight_OI, BLOCK), recipe)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        weight_OI, *kept = ctx.saved_tensors
        recipe, (dy_NO,) = ctx.recipe, gradients
        dx_NI = dw_OI = None
        with _exact(dy_NO):
            if ctx.needs_input_grad[0]:
                dy = recipe.cut(dy_NO, BLOCK if recipe.gradient_blocks else ROW_TILE)
                dx_NI = recipe.multiply(dy, recipe.cut(weight_OI, BLOCK).T, ctx.dtype)
            if ctx.needs_input_grad[1]:
                x = Quantised(kept[0], kept[1], COLUMN_TILE)
                dw_OI = recipe.multiply(recipe.cut(dy_NO, COLUMN_TILE).T, x.T, torch.float32)
        return dx_NI, dw_OI, None


class _GroupedLinear(torch.autograd.Function):
    """N x I, rows sorted by expert, times E x I x O."""

    @staticmethod
    def forward(ctx: Any, x_NI: Tensor, weight_EIO: Tensor, ends_E: Tensor, recipe: Recipe) -> Tensor:
        ctx.recipe, ctx.dtype = recipe, x_NI.dtype
        with _exact(x_NI):
            kept = _by_expert(x_NI, places_of(ends_E, len(x_NI)), recipe) if ctx.needs_input_grad[1] else None
            ctx.save_for_backward(weight_EIO, ends_E, *_parts(kept))
        return grouped_linear_by(x_NI, rounded_experts(weight_EIO, recipe), ends_E, recipe)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        weight_EIO, ends_E, *kept = ctx.saved_tensors
        recipe, (dy_NO,) = ctx.recipe, gradients
        places = places_of(ends_E, len(dy_NO))
        dx_NI = dw_EIO = None
        with _exact(dy_NO):
            if ctx.needs_input_grad[0]:
                dy = _in_blocks(dy_NO, places, recipe) if recipe.gradient_blocks else rounded(dy_NO, ROW_TILE, recipe)
                weight_EOI = rounded_experts(weight_EIO, recipe).transpose(1, 2)
                dx_NI = F.grouped_mm(dy, weight_EOI, offs=ends_E).to(ctx.dtype)
            if ctx.needs_input_grad[1]:
                x = _spread(Quantised(kept[0], kept[1], COLUMN_TILE), places)
                dy = _spread(_by_expert(dy_NO, places, recipe), places)
                dw_EIO = F.grouped_mm(x.T, dy, offs=places.ends_E)
        return dx_NI, dw_EIO, None, None


def _parts(kept: Quantised | None) -> tuple[Tensor, ...]:
    return () if kept is None else (kept.values, kept.inverse_scales)


# ----------------------------------------------------------------------------------------------- tiles of rows by expert


@dataclass(frozen=True)
class Places:
    """Rows filled up with zeros, so that each expert has whole tiles of 128 of them.

    `of_row` N: the place of each row; `n_places` is 128 L; `ends_E` (int32) the running total of places per expert.
    """

    of_row: Tensor
    n_places: int
    ends_E: Tensor


def places_of(ends_E: Tensor, n_rows: int) -> Places:
    """Give every row a place; an expert without rows has none."""
    counts_E = ends_E.long().diff(prepend=ends_E.new_zeros(1, dtype=torch.long))
    place_ends_E = (-(-counts_E // TILE) * TILE).cumsum(0)
    shift_E = place_ends_E - (-(-counts_E // TILE) * TILE) - (ends_E - counts_E)
    of_row = torch.arange(n_rows, device=ends_E.device) + shift_E.repeat_interleave(counts_E)
    return Places(of_row, int(place_ends_E[-1]), place_ends_E.to(torch.int32))


def _put(x_NC: Tensor, places: Places) -> Tensor:
    """Rows to their places, zeros between them."""
    return x_NC.new_zeros(places.n_places, x_NC.shape[1]).index_copy_(0, places.of_row, x_NC)


def _by_expert(x_NC: Tensor, places: Places, recipe: Recipe) -> Quantised:
    """Cut each expert's rows into tiles of 128 x 1; values N x C without the zeros, inverse scales L x C."""
    padded = recipe.cut(_put(x_NC, places), COLUMN_TILE)
    values = padded.values.view(torch.uint8).index_select(0, places.of_row).view(padded.values.dtype)
    return Quantised(values, padded.inverse_scales, COLUMN_TILE)


def _spread(kept: Quantised, places: Places) -> Tensor:
    """Dequantise what `_by_expert` made, 128 L x C with its zeros."""
    bytes_ = _put(kept.values.view(torch.uint8), places).view(kept.values.dtype)
    return Quantised(bytes_, kept.inverse_scales, COLUMN_TILE).dequantise()


def _in_blocks(x_NC: Tensor, places: Places, recipe: Recipe) -> Tensor:
    """`rounded` in blocks of 128 x 128 within each expert's rows, N x C."""
    return rounded(_put(x_NC, places), BLOCK, recipe).index_select(0, places.of_row)
