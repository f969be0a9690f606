"""Keyed random numbers: (seed, rollout, prompt, sample, position) determines each draw, not the order of the calls.

So a completion is the same whichever rows share its batch, in whatever order rows end, and after any resume. The numbers
are splitmix64 hashes of the key (Steele, Lea and Flood 2014), computed for all rows and positions at once.
"""

from __future__ import annotations

import torch
from torch import Tensor

# splitmix64's constants, as signed 64-bit numbers: torch multiplies int64 modulo 2^64.
_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB
_BITS = 24  # the integers below 2^24 are exact in float32


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Logical shift of int64 (torch's own keeps the sign)."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    """One splitmix64 step: an int64 hash, elementwise."""
    x = x + _GOLDEN
    x = (x ^ _shift_right(x, 30)) * _MIX_1
    x = (x ^ _shift_right(x, 27)) * _MIX_2
    return x ^ _shift_right(x, 31)


def _keyed_state(seed: int, keys: Tensor) -> Tensor:
    """The hash of `seed` and each row of `keys`, R int64 numbers."""
    state = _mix(torch.full((len(keys),), seed, dtype=torch.long, device=keys.device))
    for column in keys.long().unbind(1):
        state = _mix(state ^ column)
    return state


def keyed_seeds(seed: int, keys: Tensor) -> list[int]:
    """A seed in [0, 2^63) for each of R rows, from `seed` and the int64 keys R x K, for engines with their own generator."""
    return _shift_right(_mix(_keyed_state(seed, keys)), 1).tolist()


def keyed_uniforms(seed: int, keys: Tensor, n_positions: int) -> Tensor:
    """Uniform numbers in [0, 1), R x n_positions (FP32), from `seed` and the int64 keys R x K."""
    state = _keyed_state(seed, keys)
    positions = torch.arange(n_positions, device=keys.device)
    hashed = _mix(_mix(state[:, None] ^ positions[None, :]))
    return _shift_right(hashed, 64 - _BITS).float() / 2**_BITS
