"""What GPUs compute at best, by NVIDIA's data sheets: FLOP/s of dense BF16 products (SXM boards)."""

from __future__ import annotations

from collections.abc import Mapping

# The sheets state the rate with sparsity, which is twice the dense one. An H800 computes as an H100 does; its links are slower.
GPU_FLOPS: Mapping[str, float] = {"a100": 624e12 / 2, "h100": 1979e12 / 2, "h200": 1979e12 / 2, "h800": 1979e12 / 2}
