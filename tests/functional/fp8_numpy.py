"""FP8 tiles from their definition in NumPy, slowly: integers for E4M3, and a loop over tiles for their scales."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


def e4m3_bytes(x: Array) -> NDArray[np.uint8]:
    """Round finite FP32 numbers to E4M3 bytes: sign, exponent with bias 7, 3 bits of mantissa, subnormals in steps of 2^-9.

    The significand is the integer m of x = m 2^(e - 23); the rounded number is a count of quanta of 2^max(e - 3, -9), nearest, ties
    to even. With 8 quanta for a mantissa of 0, the count's carry moves into the exponent by itself.
    """
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32).astype(np.int64)
    exponent = (bits >> 23) & 255
    significand = np.where(exponent > 0, (bits & 0x7FFFFF) | 0x800000, bits & 0x7FFFFF)
    e = np.maximum(exponent, 1) - 127
    quantum = np.maximum(e - 3, -9)
    shift = np.minimum(quantum - (e - 23), 40)  # from 26 on nothing is left of 24 bits
    count, rest, half = significand >> shift, significand & ((1 << shift) - 1), 1 << (shift - 1)
    count += (rest > half) | ((rest == half) & (count % 2 == 1))
    magnitude = np.where(e - 3 >= -9, ((e + 7) << 3) + count - 8, count)
    return (np.minimum(magnitude, 0x7E) | ((bits >> 31) << 7)).astype(np.uint8)  # 0x7E is 448, 0x7F is NaN


def e4m3_values(stored: NDArray[np.uint8]) -> Array:
    """The numbers of E4M3 bytes, each from its sign, exponent and mantissa."""
    exponent, mantissa = (stored >> 3 & 15).astype(np.int32), (stored & 7).astype(np.float32)
    normal = np.ldexp(1 + mantissa / 8, exponent - 7)
    value = np.where(exponent > 0, normal, np.ldexp(mantissa, -9)).astype(np.float32)
    return np.where(stored & 127 == 127, np.float32(np.nan), np.where(stored > 127, -value, value))


def scale_of(tile: Array, largest_scale: float, power_of_two: bool) -> np.float32:
    """The scale of one tile of finite numbers; `largest_scale` is the largest finite number of the tile's type."""
    largest = np.abs(tile).max()
    if largest == 0:
        return np.float32(1)
    with np.errstate(over="ignore"):
        scale = np.float32(448) / np.float32(largest)
    scale = np.float32(largest_scale) if np.isinf(scale) else scale
    mantissa, exponent = np.frexp(scale)  # mantissa in [1/2, 1)
    return np.ldexp(np.float32(0.5), exponent).astype(np.float32) if power_of_two and mantissa else scale


def quantised(
    x: Array, tile: tuple[int, int], power_of_two: bool, largest_scale: float = float(np.finfo(np.float32).max)
) -> tuple[NDArray[np.uint8], Array]:
    """Bytes R x C and inverse scales r x c of a matrix of finite numbers, by a loop over its tiles."""
    (rows, columns), (height, width) = x.shape, tile
    scales = np.zeros((-(-rows // height), -(-columns // width)), np.float32)
    for i, j in np.ndindex(scales.shape):
        part = x[i * height : (i + 1) * height, j * width : (j + 1) * width]
        scales[i, j] = scale_of(part, largest_scale, power_of_two)
    return e4m3_bytes(x * spread(scales, tile, x)), np.float32(1) / scales


def spread(factors: Array, tile: tuple[int, int], x: Array) -> Array:
    """A factor per tile as a factor per number of `x`."""
    return factors.repeat(tile[0], 0)[: x.shape[0]].repeat(tile[1], 1)[:, : x.shape[1]]


def rounded(x: Array, tile: tuple[int, int], power_of_two: bool = True) -> Array:
    """What is left of a matrix of FP32 numbers after its way through FP8."""
    stored, inverse = quantised(x, tile, power_of_two)
    return e4m3_values(stored) * spread(inverse, tile, x)
