"""FP8 tiles: by hand, byte by byte against Transformer Engine's reference, and against integers in NumPy.

`fp8_golden` holds 24 of 160 cases that Transformer Engine's Python references (tests/pytorch/references, commit d0067d0da) gave on
a CPU: `_x` the matrix as raw bits, `_q` and `_s` bytes and inverse scales of its tiles, `_qt` and `_st` those of its transpose.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from r1_lightning.functional.fp8_tiles import BLOCK, COLUMN_TILE, ROW_TILE, quantise, scales_of, to_e4m3
from r1_lightning.types.errors import InvalidInput
from tests.functional.fp8_numpy import e4m3_bytes, e4m3_values, quantised

COMMITTED = Path(__file__).parent / "fp8_golden"
ALL = Path(__file__).resolve().parents[3] / "shared/fp8_golden"


def check_golden(folder: Path) -> int:
    """Compare every case of a folder, both ways round; the number of cases."""
    stored, cases = np.load(folder / "te_blockwise.npz"), json.loads((folder / "cases.json").read_text())["cases"]
    for case in cases:
        name, power_of_two = case["case"], case["power_of_two"]
        height, width = case["tile"]
        x = torch.from_numpy(stored[f"{name}_x"]).view(getattr(torch, case["dtype"]))
        rows, columns = quantise(x, (height, width), power_of_two), quantise(x, (width, height), power_of_two)
        for found, bytes_, scales in (
            (rows.values, stored[f"{name}_q"], stored[f"{name}_s"]),
            (columns.values.T, stored[f"{name}_qt"], stored[f"{name}_st"]),
        ):
            inverse = rows.inverse_scales if found is rows.values else columns.inverse_scales.T
            assert np.array_equal(found.contiguous().view(torch.uint8).numpy(), bytes_), case
            assert np.array_equal(inverse.contiguous().view(torch.int32).numpy(), scales.view(np.int32)), case
    return len(cases)


def test_bytes_and_scales_are_transformer_engine_s() -> None:
    assert check_golden(COMMITTED) == 24


def test_bytes_and_scales_are_transformer_engine_s_in_all_cases() -> None:
    if not ALL.is_dir():
        pytest.skip("needs all cases, in ../shared/fp8_golden beside the checkout")
    assert check_golden(ALL) == 160


def test_a_tile_by_hand() -> None:
    """The largest is 3, so the scale is 448 / 3 = 149.33, as a power of two 128. 3 * 128 = 384 is an E4M3 number, 1.03 * 128 =
    131.84 lies between 128 and 144 and nearer to 128, and 0.01 * 128 = 1.28 between 1.25 and 1.375."""
    found = quantise(torch.tensor([[3.0, -1.03, 0.01, 0.0]]))
    assert found.values.float().tolist() == [[384.0, -128.0, 1.25, 0.0]]
    assert found.inverse_scales.tolist() == [[1 / 128]]
    assert found.dequantise().tolist() == [[3.0, -1.0, 1.25 / 128, 0.0]]


def test_each_tile_has_a_scale_of_its_own() -> None:
    """Rows: 448 / 1 = 448, down to 256, and 448 / 7 = 64. Columns: 448 / 7 and 448 / 3.5 = 128. The block of all: 64."""
    x = torch.tensor([[1.0, 0.5], [7.0, 3.5]])
    assert quantise(x, ROW_TILE).inverse_scales.tolist() == [[1 / 256], [1 / 64]]
    assert quantise(x, COLUMN_TILE).inverse_scales.tolist() == [[1 / 64, 1 / 128]]
    assert quantise(x, BLOCK).inverse_scales.tolist() == [[1 / 64]]
    assert quantise(x, BLOCK, power_of_two=False).inverse_scales.tolist() == [[1 / 64]]


def test_the_largest_numbers_of_fp32_come_back_finite() -> None:
    """448 / 3e38 lies between 2^-120 and 2^-119, so the inverse scale is 2^120; 3e38 / 2^120 = 225.7 lies nearest to 224."""
    found = quantise(torch.tensor([[3e38, 0.0, -(2.0**120)]]))
    assert found.inverse_scales.tolist() == [[2.0**120]]
    assert found.dequantise().tolist() == [[224 * 2.0**120, 0.0, -(2.0**120)]]


@pytest.mark.parametrize("power_of_two", [True, False])
def test_zeros_infinities_nan_and_the_smallest_numbers(power_of_two: bool) -> None:
    inf, nan, least = math.inf, math.nan, 2.0**-149
    x = torch.zeros(5, 128)
    for row, numbers in enumerate([(0.0, 0.0), (inf, 1.0), (nan, 1.0), (-inf, inf), (least, 0.0)]):
        x[row, :2] = torch.tensor(numbers)
    found = quantise(x, ROW_TILE, power_of_two)
    largest = torch.finfo(torch.float32).max if not power_of_two else 2.0**127
    scales = scales_of(x.abs().amax(1), torch.float32, power_of_two).tolist()
    assert scales[:2] == [1.0, 0.0] and math.isnan(scales[2]) and scales[3:] == [0.0, largest]
    exact = found.dequantise()
    assert (exact[0] == 0).all() and exact[1:4].isnan().all() and (exact[4] == 0).all()  # 2^-149 * 2^127 is below 2^-10


def test_nothing_beyond_the_largest_number_becomes_nan() -> None:
    x = torch.tensor([447.0, 448.0, 463.9, 464.0, 1e30, -1e30])
    assert to_e4m3(x).float().tolist() == [448.0, 448.0, 448.0, 448.0, 448.0, -448.0]


def test_rounding_to_e4m3_against_integers() -> None:
    """Every E4M3 number, every midpoint between two, and their neighbours in FP32: 3 x 507 numbers, ties to even among them."""
    numbers = e4m3_values(np.arange(127, dtype=np.uint8))
    exact = np.concatenate([numbers, (numbers[1:] + numbers[:-1]) / 2]).astype(np.float32)
    near = np.concatenate([exact, np.nextafter(exact, np.float32(500)), np.nextafter(exact, np.float32(-500))])
    signed = np.concatenate([near, -near])
    assert np.array_equal(to_e4m3(torch.from_numpy(signed)).view(torch.uint8).numpy(), e4m3_bytes(signed))
    assert np.array_equal(to_e4m3(torch.from_numpy(numbers)).view(torch.uint8).numpy(), np.arange(127))


def test_dequantising_is_value_times_inverse_scale_for_every_byte() -> None:
    bytes_ = torch.arange(256, dtype=torch.uint8)
    values = bytes_[bytes_ % 128 != 127].view(torch.float8_e4m3fn)  # 127 is NaN, which has a scale that is none
    found = quantise(torch.ones(7, len(values)))
    for inverse in (1.0, 1 / 3, 2.0**-127, 1e-42, 3e35, 2.0**120, math.inf, math.nan):
        again = type(found)(values.expand(7, -1).contiguous(), torch.full((7, 2), inverse), ROW_TILE).dequantise()
        torch.testing.assert_close(again[3], values.float() * inverse, rtol=0, atol=0, equal_nan=True)


KINDS = {
    "normal": lambda r, x: x,
    "wide": lambda r, x: x * np.exp(4 * r.standard_normal(x.shape)),
    "zeros": lambda r, x: np.where(r.random(x.shape) < 0.9, 0, x) * (r.random((len(x), 1)) < 0.5),
    "subnormal": lambda r, x: x * 2.0**-130,
    "huge": lambda r, x: np.clip(x, -3, 3) * 1e30 * np.exp(r.standard_normal((len(x), 1)) * 3),
    "outlier": lambda r, x: np.where(r.random(x.shape) < 0.01, 1e30, x),
}


@pytest.mark.parametrize("kind", KINDS)
def test_random_tiles_against_integers(kind: str) -> None:
    """2,000 tiles of each of 6 kinds, 1 x 128 and 128 x 1, in FP32 and in BF16, with both kinds of scales."""
    draw = np.random.default_rng(sum(map(ord, kind)))
    n_tiles = 0
    for shape in [(97, 640), (1, 1), (5, 127), (3, 129), (130, 7), (2, 256)]:
        exact = torch.from_numpy(KINDS[kind](draw, draw.standard_normal(shape)).astype(np.float32))
        for x in (exact, exact.bfloat16()):
            for power_of_two in (True, False):
                n_tiles += same_tiles(x, ROW_TILE, power_of_two) + same_tiles(x, COLUMN_TILE, power_of_two)
                n_tiles += same_tiles(x, BLOCK, power_of_two)
    assert n_tiles >= 2000


def same_tiles(x: Tensor, tile: tuple[int, int], power_of_two: bool) -> int:
    """Compare all tiles of a matrix with the loop in NumPy; their number."""
    found = quantise(x, tile, power_of_two)
    bytes_, inverse = quantised(x.float().numpy(), tile, power_of_two, torch.finfo(x.dtype).max)
    assert np.array_equal(found.inverse_scales.numpy().view(np.int32), inverse.view(np.int32))
    assert np.array_equal(found.values.view(torch.uint8).numpy(), bytes_)
    return inverse.size


def test_a_tile_depends_on_nothing_outside_of_it() -> None:
    x = torch.randn(40, 300, generator=torch.Generator().manual_seed(0))
    whole, part = quantise(x), quantise(x[7:9])
    assert torch.equal(whole.values[7:9].view(torch.uint8), part.values.view(torch.uint8))
    assert torch.equal(whole.inverse_scales[7:9], part.inverse_scales)


def test_with_powers_of_two_a_number_that_went_through_fp8_stays() -> None:
    x = torch.randn(64, 256, generator=torch.Generator().manual_seed(0))
    once = quantise(x).dequantise()
    assert torch.equal(quantise(once).dequantise(), once)
    assert torch.equal(once.bfloat16().float(), once)  # 4 bits of significand fit into BF16's 8


def test_the_error_of_a_normal_matrix() -> None:
    """A rounding error of at most 1 part in 16, uniform: 1/16 / sqrt(3) of half of numbers that are near a power of two, 2.6 %."""
    x = torch.randn(512, 512, generator=torch.Generator().manual_seed(0))
    for tile in (ROW_TILE, COLUMN_TILE, BLOCK):
        error = (quantise(x, tile).dequantise() - x).norm() / x.norm()
        assert 0.0255 < error < 0.0275


def test_only_matrices_are_cut_into_tiles() -> None:
    with pytest.raises(InvalidInput, match=r"x=\(2, 3, 4\) is not allowed: only a matrix is cut into tiles"):
        quantise(torch.zeros(2, 3, 4))
