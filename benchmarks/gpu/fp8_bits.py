"""Are the bytes and scales of an FP8 backend those of the emulation on a CPU, to the bit?

`scaled_mm` multiplies what our own `quantise` makes on the device; Transformer Engine cuts matrices by kernels of its own. Both are
asked for every way of cutting: rows and columns of 128, blocks, scales that are powers of two or not, from FP32 and BF16. The
matrices have ragged edges, zeros, and numbers near both ends of FP32. One bit that differs is a failure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.device import Meter
from benchmarks.gpu.report import Row
from benchmarks.gpu.same_bits import same
from r1_lightning.functional.fp8_tiles import BLOCK, COLUMN_TILE, E4M3, ROW_TILE, TILE, Quantised, quantise
from r1_lightning.model.fp8_precision import reason_against

Shape = tuple[int, int]


def title(backend: str) -> str:
    return f"FP8 by {backend}: bytes and scales"


def measure(backend: str, shapes: Sequence[Shape], meter: Meter) -> Iterator[Row]:
    """How many matrices are cut as the emulation cuts them."""
    if reason := reason_against(backend):
        yield Row("fp8_bits", title(backend), not_run=reason)
        return
    cut = by_transformer_engine if backend == "te" else by_our_own
    different, total = [], 0
    for name, matrix in matrices(shapes):
        for power_of_two in (True, False):
            for found in cut(matrix.to(meter.device), power_of_two):
                total += 1
                if not _are_same(found, quantise(matrix, found.tile, power_of_two)):
                    tile = " x ".join(map(str, found.tile))
                    different.append(f"{name}, {tile}, {'powers of two' if power_of_two else 'FP32 scales'}")
    yield Row(
        part="fp8_bits",
        work=title(backend),
        unit=f"of {total} matrices with the emulation's bytes and scales",
        value=float(total - len(different)),
        beside=f"different: {'; '.join(different[:3])}{'; ...' if len(different) > 3 else ''}" if different else "",
        peak_bytes=meter.peak_bytes(),
        failed=bool(different),
    )


def matrices(shapes: Sequence[Shape]) -> Iterator[tuple[str, Tensor]]:
    """What is cut, with its name, on the CPU."""
    generator = torch.Generator().manual_seed(0)
    for shape in shapes:
        normal = torch.randn(shape, generator=generator)
        exponents = torch.randint(-30, 30, shape, generator=generator)
        zeros = normal.clone()
        zeros[::2, : TILE // 2], zeros[1::2] = 0.0, 0.0
        made = {"normal": normal, "wide": normal * torch.exp2(exponents.float()), "zeros": zeros}
        made |= {"large": normal * 1e37, "small": normal * 1e-39}
        for name, matrix in made.items():
            for dtype in (torch.float32, torch.bfloat16):
                yield f"{name} {shape[0]} x {shape[1]} {str(dtype).removeprefix('torch.')}", matrix.to(dtype)


def by_our_own(x: Tensor, power_of_two: bool) -> list[Quantised]:
    """The tiles of operands, and the blocks of weights."""
    return [quantise(x, tile, power_of_two) for tile in (ROW_TILE, COLUMN_TILE, BLOCK)]


def by_transformer_engine(x: Tensor, power_of_two: bool) -> list[Quantised]:
    """The same by Transformer Engine: rows and columns of an operand, blocks both ways round."""
    (rows, columns), found = x.shape, []
    for dimensions in (1, 2):
        found += unpacked(quantiser_of(dimensions, power_of_two)(x), rows, columns, dimensions)
    return found


def quantiser_of(dimensions: int, power_of_two: bool) -> Any:
    """Transformer Engine's, both ways round, of tiles (1) or blocks (2)."""
    import transformer_engine.pytorch as te

    return te.Float8BlockQuantizer(
        te.DType.kFloat8E4M3,
        rowwise=True,
        columnwise=True,
        force_pow_2_scales=power_of_two,
        block_scaling_dim=dimensions,
    )


def unpacked(made: Any, rows: int, columns: int, dimensions: int) -> list[Quantised]:
    """A cut matrix of Transformer Engine in our layout; its scales are filled up to multiples of 4.

    Bytes are rows x columns, and columns x rows the other way round. Scales of tiles stand as tiles x rows, and as tiles x
    columns the other way round; those of blocks as blocks down x blocks across, and transposed.
    """
    down, across = -(-rows // TILE), -(-columns // TILE)
    upright, lying = made._rowwise_data.view(E4M3), made._columnwise_data.view(E4M3).T
    scales, other = made._rowwise_scale_inv, made._columnwise_scale_inv
    if dimensions == 1:
        return [Quantised(upright, scales[:, :rows].T, ROW_TILE), Quantised(lying, other[:, :columns], COLUMN_TILE)]
    return [Quantised(upright, scales[:, :across], BLOCK), Quantised(lying, other[:, :down].T, BLOCK)]


def _are_same(one: Quantised, other: Quantised) -> bool:
    pairs = ((one.values, other.values), (one.inverse_scales, other.inverse_scales))
    plain = torch.contiguous_format  # the strides of a matrix of one row or column are anything
    return all(
        same(found.cpu().clone(memory_format=plain), wanted.clone(memory_format=plain)) for found, wanted in pairs
    )
