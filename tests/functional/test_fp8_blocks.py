"""FP8 weights and their scales per block."""

from __future__ import annotations

import pytest
import torch

from r1_lightning.functional.fp8_blocks import dequantise_blocks
from r1_lightning.types.errors import InvalidInput


def test_by_hand() -> None:
    """3 x 3 in blocks of 2 x 2: the blocks at the right and lower edge are 2 x 1, 1 x 2 and 1 x 1."""
    stored = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]]).to(torch.float8_e4m3fn)
    found = dequantise_blocks(stored, torch.tensor([[1.0, 10.0], [100.0, 0.5]]), (2, 2))
    assert found.tolist() == [[1.0, 2.0, 30.0], [4.0, 5.0, 60.0], [700.0, 800.0, 4.5]]
    assert found.dtype == torch.float32


def test_against_a_loop_over_blocks() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(300, 200, generator=generator)
    scales = torch.empty(3, 2)
    stored = torch.empty(300, 200, dtype=torch.float8_e4m3fn)
    for i in range(3):
        for j in range(2):
            block = weight[128 * i : 128 * (i + 1), 128 * j : 128 * (j + 1)]
            scales[i, j] = block.abs().max() / 448  # the largest number of E4M3
            stored[128 * i : 128 * (i + 1), 128 * j : 128 * (j + 1)] = (block / scales[i, j]).to(torch.float8_e4m3fn)
    found = dequantise_blocks(stored, scales, (128, 128))
    assert ((found - weight).abs() <= weight.abs() * 2**-4 + scales.max() * 2**-10).all()  # 3 bits of mantissa


def test_scales_that_do_not_cover_the_weight_are_refused() -> None:
    with pytest.raises(InvalidInput, match="a weight of 3 x 3 in blocks of 2 x 2 needs 2 x 2 scales"):
        dequantise_blocks(torch.zeros(3, 3), torch.ones(1, 2), (2, 2))
