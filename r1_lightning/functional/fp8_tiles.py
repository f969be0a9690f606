"""FP8 numbers with one scale per tile, as DeepSeek-V3 trains with them (V3 section 3.3.2).

An E4M3 number has four bits of exponent and three of mantissa: it reaches 448 and is exact to one part in 16. One scale for a whole
matrix would let its largest number push the small ones into zero, so the matrix is cut into tiles, and each tile has a scale of its
own: 1 x 128 for activations and output gradients, 128 x 128 for weights. A matrix that is summed over its rows (the weight gradient
sums over tokens) is cut the other way, 128 x 1, from the exact matrix and not from its first copy in FP8, which would round twice.

The bytes and the scales are those of Transformer Engine's `Float8BlockScaling` (2.20), which departs from the paper in one point:
scales are powers of two unless `power_of_two` is false. DeepSeek's published weights (`functional/fp8_blocks.py`) have FP32 scales.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from r1_lightning.types.errors import require

# Shape legend: R x C a matrix, H x W the height and width of a tile, r x c the number of tiles down and across.

E4M3 = torch.float8_e4m3fn
LARGEST = 448.0  # of E4M3
TILE = 128
ROW_TILE, COLUMN_TILE, BLOCK = (1, TILE), (TILE, 1), (TILE, TILE)
MANTISSA_BITS = 23  # of FP32


@dataclass(frozen=True)
class Quantised:
    """A matrix in FP8: `values` R x C in E4M3, `inverse_scales` r x c in FP32, and the (height, width) of a `tile`."""

    values: Tensor
    inverse_scales: Tensor
    tile: tuple[int, int]

    @property
    def T(self) -> Quantised:
        """The transpose, without a copy: tiles of 128 x 1 become tiles of 1 x 128."""
        return Quantised(self.values.T, self.inverse_scales.T, (self.tile[1], self.tile[0]))

    def dequantise(self) -> Tensor:
        """Return the numbers that the bytes stand for, value times inverse scale, R x C in FP32."""
        if not self.values.is_contiguous() and self.values.T.is_contiguous():
            return self.T.dequantise().T  # in the order of the memory
        return _by_tile(*_widened(self.values, self.inverse_scales), self.tile)


class Reused(Quantised):
    """A matrix that is multiplied many times: it is dequantised at most once."""

    @classmethod
    def of(cls, matrix: Quantised) -> Reused:
        return cls(matrix.values, matrix.inverse_scales, matrix.tile)

    @functools.cached_property
    def _numbers(self) -> Tensor:
        return super().dequantise()

    def dequantise(self) -> Tensor:
        return self._numbers


def scales_of(largest: Tensor, dtype: torch.dtype, power_of_two: bool = True) -> Tensor:
    """Return the factor that takes the largest magnitude of each tile to 448, in FP32; any shape.

    A power of two is rounded down, so that nothing passes 448. A tile of zeros has scale 1, one with an infinity 0, one with a NaN
    NaN. Where 448 / largest is no FP32 number, the scale is the largest finite number of `dtype`, the type of the matrix.
    """
    # Division by a tensor: torch computes `448.0 / largest` as a reciprocal times 448, which is one bit off in a quarter of cases.
    scales = torch.div(torch.full_like(largest, LARGEST), largest)
    scales = scales.masked_fill(scales.isinf(), torch.finfo(dtype).max)
    if power_of_two:  # clearing a NaN's mantissa would make it an infinity
        cleared = (scales.view(torch.int32) >> MANTISSA_BITS << MANTISSA_BITS).view(torch.float32)
        scales = torch.where(scales.isnan(), scales, cleared)
    return scales.masked_fill(largest == 0, 1.0)


def quantise(x_RC: Tensor, tile: tuple[int, int] = ROW_TILE, power_of_two: bool = True) -> Quantised:
    """Round a matrix in FP32 or BF16 to E4M3, one scale per tile; tiles at the right and lower edge may be smaller.

    A tile with an infinity or a NaN dequantises to NaN. Raises InvalidInput if `x_RC` is no matrix.
    """
    require(x_RC.dim() == 2, "x", tuple(x_RC.shape), "only a matrix is cut into tiles")
    exact = x_RC.float()
    scales = scales_of(_tiles(exact.abs(), tile).amax((1, 3)), x_RC.dtype, power_of_two)
    return Quantised(to_e4m3(_by_tile(exact, scales, tile)), scales.reciprocal(), tile)


def to_e4m3(scaled: Tensor) -> Tensor:
    """Round FP32 numbers to the nearest of E4M3, ties to even, and what lies outside to the largest."""
    return scaled.clamp(-LARGEST, LARGEST).to(E4M3)  # the cast alone gives NaN from 464 on in some releases of torch


def _widened(values: Tensor, inverse_scales: Tensor) -> tuple[Tensor, Tensor]:
    """Return FP32 numbers and factors whose products are those of the E4M3 `values` and `inverse_scales`, to the bit.

    A CPU converts E4M3 number by number, seven times slower than this: E4M3 and FP16 differ in the width of the exponent alone, so
    shifted bytes are FP16 numbers 2^8 too small, and the factors make up for it. Where a factor would be no number, it is number by
    number after all: tiles that reach 2.98e38 have an inverse scale of 2^120, those with an infinity none. NaN, which has no such
    byte, comes from the factors: `quantise` gives it only to tiles whose inverse scale is NaN or infinite.
    """
    if values.device.type != "cpu" or bool((inverse_scales * 2**8).isinf().any()):
        return values.float(), inverse_scales
    shifted = (values.view(torch.int8).to(torch.int16) << 7) & ~0x4000  # the sign was extended into the exponent
    return shifted.view(torch.float16).float(), inverse_scales * 2**8


def _tiles(x_RC: Tensor, tile: tuple[int, int]) -> Tensor:
    """Return the tiles of a matrix, r x H x c x W; those at the edges are filled up with zeros."""
    (rows, columns), (height, width) = x_RC.shape, tile
    missing = (-rows % height, -columns % width)
    padded = F.pad(x_RC, (0, missing[1], 0, missing[0])) if any(missing) else x_RC
    down, across = padded.shape[0] // height, padded.shape[1] // width  # in numbers: -1 would be unknown without rows
    return padded.reshape(down, height, across, width)


def _by_tile(x_RC: Tensor, factors_rc: Tensor, tile: tuple[int, int]) -> Tensor:
    """Return each tile times its factor, R x C."""
    rows, columns = x_RC.shape
    scaled = torch.mul(_tiles(x_RC, tile), factors_rc[:, None, :, None])
    return scaled.flatten(2).flatten(0, 1)[:rows, :columns]
