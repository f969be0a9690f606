"""Weights stored in FP8 with a scale per block, as DeepSeek publishes V3 and R1 (V3 section 3.3.2).

A weight W is stored as E4M3 numbers q, and for every block of 128 x 128 of them one FP32 scale s (`weight_scale_inv`): W = q s.
Blocks at the right and lower edge may be smaller.
"""

from __future__ import annotations

import torch
from torch import Tensor

from r1_lightning.types.errors import require

# Shape legend: O x I a weight, H x W the blocks' height and width, o x i the number of blocks down and across.


def dequantise_blocks(stored_OI: Tensor, scales_oi: Tensor, block: tuple[int, int]) -> Tensor:
    """Convert an FP8 weight O x I with its scales ceil(O / H) x ceil(I / W) to FP32 O x I.

    Raises InvalidInput if the scales do not cover the weight exactly.
    """
    (rows, columns), (height, width) = stored_OI.shape, block
    wanted = (-(-rows // height), -(-columns // width))
    allowed = f"a weight of {rows} x {columns} in blocks of {height} x {width} needs {wanted[0]} x {wanted[1]} scales"
    require(tuple(scales_oi.shape) == wanted, "weight_scale_inv", tuple(scales_oi.shape), allowed)
    spread = scales_oi.float().repeat_interleave(height, 0)[:rows].repeat_interleave(width, 1)[:, :columns]
    return torch.mul(stored_OI.float(), spread)
