"""Rotary position embedding of MLA's decoupled part, and its YaRN extension.

A pair of neighbouring dimensions (x_2i, x_2i+1) is rotated by the angle position * theta^(-2i/d). DeepSeek pairs neighbours
(interleaved); HuggingFace's Llama pairs x_i with x_(i + d/2). The result may have any order that queries and keys share: here
all rotated even dimensions come first, then the odd ones, which saves the copy that interleaves them.

YaRN (V3 section 4.3): frequencies that make many turns over the original context stay, slow ones are divided by the factor, with
a linear ramp between; the softmax scale grows by (0.1 m ln s + 1)^2.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from r1_lightning.model.config import YarnConfig


def rotary_frequencies(width: int, theta: float, yarn: YarnConfig | None) -> Tensor:
    """Angles per position, width / 2 values (FP32, radians). V3 official code `precompute_freqs_cis`."""
    frequencies = 1.0 / theta ** (torch.arange(0, width, 2, dtype=torch.float32) / width)
    if yarn is None:
        return frequencies
    low, high = (_dimension_turning(turns, width, theta, yarn) for turns in (yarn.beta_fast, yarn.beta_slow))
    low, high = max(math.floor(low), 0), min(math.ceil(high), width - 1)
    span = max(high - low, 0.001)  # the reference's guard against a ramp of width zero
    ramp = ((torch.arange(width // 2, dtype=torch.float32) - low) / span).clamp(0, 1)
    return frequencies / yarn.factor * ramp + frequencies * (1 - ramp)


def _dimension_turning(turns: float, width: int, theta: float, yarn: YarnConfig) -> float:
    """The (fractional) pair index whose rotation makes `turns` full turns over the original context."""
    return width * math.log(yarn.original_max_positions / (turns * 2 * math.pi)) / (2 * math.log(theta))


def yarn_scale(factor: float, mscale: float) -> float:
    """0.1 * mscale * ln(factor) + 1 (1.36889 for V3's factor 40), and 1 where nothing is extended."""
    return 0.1 * mscale * math.log(factor) + 1.0 if factor > 1 else 1.0


def softmax_scale(qk_head_dim: int, yarn: YarnConfig | None) -> float:
    """1 / sqrt(d_h + d_h^R) (V3 eq 10), times yarn_scale(mscale_all_dim)^2 where YaRN is on."""
    scale = qk_head_dim**-0.5
    return scale if yarn is None else scale * yarn_scale(yarn.factor, yarn.mscale_all_dim) ** 2


def rotary_tables(max_positions: int, width: int, theta: float, yarn: YarnConfig | None) -> tuple[Tensor, Tensor]:
    """cos and sin, each max_positions x width / 2 (FP32)."""
    angles = torch.outer(torch.arange(max_positions, dtype=torch.float32), rotary_frequencies(width, theta, yarn))
    gain = 1.0 if yarn is None else yarn_scale(yarn.factor, yarn.mscale) / yarn_scale(yarn.factor, yarn.mscale_all_dim)
    return angles.cos() * gain, angles.sin() * gain


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the pairs of x (... x width) by the angles in cos and sin (broadcastable to ... x width / 2)."""
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.cat([even * cos - odd * sin, odd * cos + even * sin], dim=-1).to(x.dtype)
