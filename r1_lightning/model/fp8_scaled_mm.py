"""FP8 products by torch's own kernels (`torch.nn.functional.scaled_mm`), for GPUs of compute capability 9.0. **Never run on one.**

Operands are the bytes and scales of `functional/fp8_tiles.py`; the kernel multiplies the bytes, and the scales every 128 of them
(V3 section 3.3.2). It asks for (torch 2.13, `aten/src/ATen/native/cuda/ScaledBlas.cpp`):

- A of M x K row by row and B of K x N column by column, M and N multiples of 16, K of 128 here, so that tiles are whole: what is
  missing is filled up with zeros, whose products are 0;
- scales of tiles of 1 x 128 as M x K/128, column by column;
- scales of blocks of 128 x 128 as K/128 (filled up to a multiple of 4) x N/128, column by column.

Tests hold these layouts against a stand-in for the kernel; what a GPU makes of them is not known. Experts multiply one by one.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from r1_lightning.functional.fp8_tiles import BLOCK, TILE, Quantised

ROWS = 16  # cuBLAS takes matrices whose sides are multiples of 16
BLOCK_SCALES = 4  # and columns of blocks' scales in multiples of 4


def multiply(left: Quantised, right: Quantised, dtype: torch.dtype) -> Tensor:
    """Return left right^T, M x N in `dtype`: left M x K in tiles of 1 x 128, right N x K in the same or in blocks of 128 x 128."""
    (rows, columns), is_block = (len(left.values), len(right.values)), right.tile == BLOCK
    kind = F.ScalingType.BlockWise128x128 if is_block else F.ScalingType.BlockWise1x128
    scales = block_scales(right) if is_block else tile_scales(right)
    operands = (
        filled(left.values),
        filled(right.values).T,
        tile_scales(left),
        F.ScalingType.BlockWise1x128,
        scales,
        kind,
    )
    product: Tensor = F.scaled_mm(*operands, output_dtype=dtype)
    return product[:rows, :columns]


def filled(values: Tensor) -> Tensor:
    """Return E4M3 numbers with rows and columns of zeros behind, up to multiples of 16 and 128; contiguous."""
    missing = (0, -values.shape[1] % TILE, 0, -values.shape[0] % ROWS)
    return F.pad(values.view(torch.uint8), missing).view(values.dtype).contiguous()


def tile_scales(operand: Quantised) -> Tensor:
    """Return the scales of tiles of 1 x 128, M x K/128 with the rows side by side in memory; 1 for rows of zeros."""
    padded = F.pad(operand.inverse_scales, (0, 0, 0, -len(operand.values) % ROWS), value=1.0)
    return padded.T.contiguous().T


def block_scales(operand: Quantised) -> Tensor:
    """Return the scales of blocks of an N x K operand as K/128 (a multiple of 4) x N/128, K side by side in memory."""
    padded = F.pad(operand.inverse_scales, (0, -operand.inverse_scales.shape[1] % BLOCK_SCALES), value=1.0)
    return padded.contiguous().T
