"""Our layers through the real Python of Transformer Engine, its kernels replaced by the emulation: do the three products fit?

The package decides which operand is cut which way, which copy of it a product takes, what is kept for the backward and where
gradients go; all that is Python. Its kernels cut matrices, multiply them and move rows: here these are our `quantise`, torch's
products of what the bytes stand for, and copies. So y, dx and dw have to be those of `precision=fp8_emulated`, but for the order
of sums. What the real kernels make of the same operands is for a GPU to show.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor

from r1_lightning.functional.fp8_tiles import BLOCK, COLUMN_TILE, E4M3, ROW_TILE, Quantised, quantise

HOPPER = SimpleNamespace(major=9, minor=0)


def cut(x: Tensor, quantiser: Any) -> Any:
    """What a quantiser's kernel makes: bytes and inverse scales of the orders that it was asked for."""
    from transformer_engine.pytorch.tensor.storage.float8_blockwise_tensor_storage import Float8BlockwiseQTensorStorage

    is_block, given = quantiser.block_scaling_dim == 2, quantiser.force_pow_2_scales
    upright = quantise(x, BLOCK if is_block else ROW_TILE, given) if quantiser.rowwise_usage else None
    lying = quantise(x, BLOCK if is_block else COLUMN_TILE, given) if quantiser.columnwise_usage else None
    return Float8BlockwiseQTensorStorage(
        rowwise_data=upright and upright.values.view(torch.uint8),
        rowwise_scale_inv=upright and upright.inverse_scales,
        columnwise_data=lying and lying.values.T.contiguous().view(torch.uint8),
        columnwise_scale_inv=lying and lying.inverse_scales,
        fp8_dtype=quantiser.dtype,
        quantizer=quantiser,
        is_2D_scaled=is_block,
        fake_dtype=x.dtype,
    )


def numbers(operand: Any, is_upright: bool) -> Tensor:
    """An operand as numbers in FP32; of one in FP8 the copy in that order, which has to be there."""
    if isinstance(operand, Tensor):
        return operand.float()
    if is_upright:
        tile = BLOCK if operand._is_2D_scaled else ROW_TILE
        return Quantised(operand._rowwise_data.view(E4M3), operand._rowwise_scale_inv, tile).dequantise()
    tile = BLOCK if operand._is_2D_scaled else COLUMN_TILE
    return Quantised(operand._columnwise_data.view(E4M3).T, operand._columnwise_scale_inv, tile).dequantise()


def product(A: Any, B: Any, layout: str) -> Tensor:
    """cuBLAS's product of the package: "TN" B A^T, "NN" B A, "NT" B^T A, from the copies that it would take."""
    a, b = numbers(A, layout[0] == "T"), numbers(B, layout[1] == "N")
    return (b.T if layout[1] == "T" else b) @ (a.T if layout[0] == "T" else a)


def gemm(A: Any, B: Any, out_dtype: torch.dtype | None = None, layout: str = "TN", **rest: Any) -> tuple[Any, ...]:
    return product(A, B, layout).to(out_dtype), None, None, None


def grouped_gemm(
    A: Sequence[Any],
    B: Sequence[Any],
    out: list[Tensor],
    quantization_params: Any,
    out_dtype: torch.dtype,
    layout: str = "TN",
    single_output: bool = False,
    **rest: Any,
) -> tuple[Any, ...]:
    made = [product(a, b, layout) for a, b in zip(A, B, strict=True)]
    for target, numbers_ in zip(out, [torch.cat(made)] if single_output else made, strict=True):
        target.copy_(numbers_)
    return out, [None] * len(made), None


def fill(x: Tensor, out: Tensor, counts: list[int], filled: list[int]) -> None:
    """Rows apart: zeros behind those of each expert."""
    out.copy_(
        torch.cat([F.pad(part, (0, 0, 0, n - len(part))) for part, n in zip(x.split(counts), filled, strict=True)])
    )


def unfill(x: Tensor, out: Tensor, filled: list[int], counts: list[int]) -> None:
    """The zeros away."""
    out.copy_(torch.cat([part[:n] for part, n in zip(x.split(filled), counts, strict=True)]))


@contextmanager
def emulated_kernels() -> Iterator[None]:
    """Inside, Transformer Engine computes on the CPU, and takes it for a Hopper."""
    import transformer_engine_torch as kernels
    from transformer_engine.pytorch.module import grouped_linear, linear

    replaced: tuple[tuple[Any, str, Any], ...] = (
        (torch.cuda, "current_device", lambda: 0),
        (torch.cuda, "get_device_properties", lambda device: HOPPER),
        (torch.cuda, "is_current_stream_capturing", lambda: False),
        (torch.Tensor, "is_cuda", True),
        (torch.Tensor, "cuda", lambda self: self),
        (linear, "general_gemm", gemm),
        (linear, "nvtx_range_push", lambda *names: None),
        (linear, "nvtx_range_pop", lambda *names: None),
        (grouped_linear, "general_grouped_gemm", grouped_gemm),
        (kernels, "quantize", lambda x, quantiser, *rest: cut(x, quantiser)),
        (kernels, "split_quantize", lambda x, counts, quantisers, **rest: list(map(cut, x.split(counts), quantisers))),
        (kernels, "fused_multi_row_padding", fill),
        (kernels, "fused_multi_row_unpadding", unfill),
    )
    with ExitStack() as stack:
        for owner, name, value in replaced:
            stack.enter_context(mock.patch.object(owner, name, value))
        yield
