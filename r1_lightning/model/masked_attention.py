"""Attention within the documents of packed rows: one interface, and the kernels behind it.

Documents stand one after another in a row, and a token sees itself and the earlier tokens of its own document. `row_attention`
chooses once per batch, for all layers, how that is computed:

- `DenseRows`: one kernel for all rows, with a mask B x 1 x T x T. It is the fastest where rows are short, and the reference in
  tests. Its memory grows with T^2.
- `DocumentRows`: one causal kernel per document, which needs no mask. Memory grows with T, time with the sum of squared lengths.
- `VariableLengthRows`: one kernel for all documents (`torch.nn.attention.varlen`: FlashAttention), on a GPU in 16 bits. Memory
  as above. By its documentation; it was not run on a GPU yet.

Fused kernels want keys and values of one width; where they differ (MLA: 192 and 128), zeros are appended: they add nothing to a
score, and what they add to the output is cut off.

Padding (document 0) sees padding or nothing, and no document sees it: what comes out at its places means nothing.

Prompts that are read into an empty cache are such rows, too, of one document each behind its padding (`prompt_attention`).
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn

from r1_lightning.functional.masking import document_attention_mask
from r1_lightning.model.precision import compute_type, in_compute_type

# Shape legend: B rows, T positions, S all B x T positions, N heads, G key-value heads (N, or a divisor), H width of queries and
# keys, U width of values.

# The longest rows with a dense mask: up to here it is as fast (`benchmarks/attention.py` measures both sides), and the miniature's
# rows are no longer.
MOST_DENSE_TOKENS = 256
# Padding is cut into documents of this length, so that a row of padding costs no more than a row of short documents.
PADDING_PIECE = 64
# FlashAttention on a GPU takes heads whose width is a multiple of 8.
FLASH_WIDTH_STEP = 8
# Whether the kernel takes key-value heads that query heads share; torch 2.11's has no such argument.
SHARES_HEADS = "enable_gqa" in inspect.signature(varlen_attn).parameters


class RowAttention(Protocol):
    """Attention of packed rows; made from the documents of one batch, shared by its layers.

    `compiles` is False if a compiler cannot trace it, because its work depends on the lengths of the documents.
    """

    compiles: ClassVar[bool]

    def __call__(
        self, q_BTNH: Tensor, k_BTGH: Tensor, v_BTGU: Tensor, scale: float, static_shapes: bool = False
    ) -> Tensor:
        """Return softmax(scale q k^T) v over what each token sees, B x T x N x U; head n reads key-value head n // (N / G).

        `static_shapes` is that of `Precision`: the call is compiled.
        """
        ...


def is_dense(row_tokens: int) -> bool:
    """True if a CPU gives rows of this length a dense mask."""
    return row_tokens <= MOST_DENSE_TOKENS


def row_attention(document_ids_BT: Tensor) -> RowAttention:
    """Choose the kernels for rows with these documents (0: padding), by device, type of products under autocast, and length."""
    return kernels_for(document_ids_BT).of(document_ids_BT)


def prompt_attention(is_token_RT: Tensor) -> RowAttention | None:
    """Attention of left-padded prompts R x T onto themselves; None where a mask R x 1 x T x T is the better choice.

    Tokens must follow each other without gaps; padding may come after them, too.
    """
    kernels = kernels_for(is_token_RT)
    return None if kernels is DenseRows else kernels.of(is_token_RT.long())


def kernels_for(rows_BT: Tensor) -> type[DenseRows] | type[DocumentRows] | type[VariableLengthRows]:
    """The kernels for rows of this shape, on this device."""
    device, length = rows_BT.device.type, rows_BT.shape[1]
    is_half = compute_type(device) in (torch.bfloat16, torch.float16)
    if device == "cuda" and is_half and torch.backends.cuda.is_flash_attention_available():
        return VariableLengthRows
    return DenseRows if is_dense(length) else DocumentRows


@dataclass(frozen=True)
class DenseRows:
    """`mask` B x 1 x T x T is 0 where a token may look and -inf elsewhere, in the type of products: no layer converts it."""

    mask: Tensor

    compiles: ClassVar[bool] = True

    @classmethod
    def of(cls, document_ids_BT: Tensor) -> DenseRows:
        return cls(in_compute_type(document_attention_mask(document_ids_BT)))

    def __call__(
        self, q_BTNH: Tensor, k_BTGH: Tensor, v_BTGU: Tensor, scale: float, static_shapes: bool = False
    ) -> Tensor:
        q, k, v = (part.transpose(1, 2) for part in (q_BTNH, k_BTGH, v_BTGU))
        k, v = repeated(k, q.shape[1], 1), repeated(v, q.shape[1], 1)
        is_spelled_out = static_shapes and q.device.type == "cpu"
        attend = spelled_out_attention if is_spelled_out else F.scaled_dot_product_attention
        o_BNTU: Tensor = attend(q, k, v, self.mask, scale=scale)
        return o_BNTU.transpose(1, 2)


@dataclass(frozen=True)
class DocumentRows:
    """`lengths` of all documents of all rows in their order; they add up to S."""

    lengths: tuple[int, ...]

    compiles: ClassVar[bool] = False

    @classmethod
    def of(cls, document_ids_BT: Tensor) -> DocumentRows:
        return cls(tuple(document_borders(document_ids_BT).diff().tolist()))

    def __call__(
        self, q_BTNH: Tensor, k_BTGH: Tensor, v_BTGU: Tensor, scale: float, static_shapes: bool = False
    ) -> Tensor:
        heads = q_BTNH.shape[2]
        q, k, v = widened(q_BTNH, repeated(k_BTGH, heads, 2), repeated(v_BTGU, heads, 2))
        qs, ks, vs = (part.flatten(0, 1).split(self.lengths) for part in (q, k, v))
        o_SNH = torch.cat([causal_attention(*document, scale) for document in zip(qs, ks, vs, strict=True)])
        return o_SNH.unflatten(0, q_BTNH.shape[:2])[..., : v_BTGU.shape[-1]]


@dataclass(frozen=True)
class VariableLengthRows:
    """`borders` (int32, one more than there are documents) are the first places of all documents among all S, and S; `longest` is
    the length of the longest document.

    Where documents continue others, `keys` are the places of the keys that each document sees, document after document,
    `key_borders` and `longest_keys` what `borders` and `longest` are for queries.
    """

    borders: Tensor
    longest: int
    keys: Tensor | None = None
    key_borders: Tensor | None = None
    longest_keys: int = 0

    compiles: ClassVar[bool] = True

    @classmethod
    def of(cls, document_ids_BT: Tensor) -> VariableLengthRows:
        borders = document_borders(document_ids_BT)
        return cls(borders.int(), int(borders.diff().max()))

    def __call__(
        self, q_BTNH: Tensor, k_BTGH: Tensor, v_BTGU: Tensor, scale: float, static_shapes: bool = False
    ) -> Tensor:
        shared: dict[str, Any] = {"enable_gqa": True} if q_BTNH.shape[2] != k_BTGH.shape[2] else {}
        if shared and not SHARES_HEADS:
            k_BTGH, v_BTGU = (repeated(part, q_BTNH.shape[2], 2) for part in (k_BTGH, v_BTGU))
            shared = {}
        q, k, v = (in_compute_type(part) for part in widened(q_BTNH, k_BTGH, v_BTGU, FLASH_WIDTH_STEP))
        k_SGH, v_SGU, key_borders, longest_keys = k.flatten(0, 1), v.flatten(0, 1), self.borders, self.longest
        if self.keys is not None and self.key_borders is not None:
            k_SGH, v_SGU = k_SGH.index_select(0, self.keys), v_SGU.index_select(0, self.keys)
            key_borders, longest_keys = self.key_borders, self.longest_keys
        o_SNH = varlen_attn(
            q.flatten(0, 1),
            k_SGH,
            v_SGU,
            self.borders,
            key_borders,
            self.longest,
            longest_keys,
            scale=scale,
            window_size=(-1, 0),  # causal
            **shared,
        )
        assert isinstance(o_SNH, Tensor)  # it returns more only when asked to
        return o_SNH.unflatten(0, q_BTNH.shape[:2])[..., : v_BTGU.shape[-1]]


def causal_attention(q_TNH: Tensor, k_TNH: Tensor, v_TNH: Tensor, scale: float) -> Tensor:
    """Attention of one document, T x N x H, onto itself, by torch's fused causal kernel."""
    q, k, v = (part.transpose(0, 1).unsqueeze(0) for part in (q_TNH, k_TNH, v_TNH))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale).squeeze(0).transpose(0, 1)


def document_borders(document_ids_BT: Tensor) -> Tensor:
    """The places among all B x T at which a document begins, and B x T; padding is cut into pieces of `PADDING_PIECE` at most.

    On a GPU the host waits for it, once per batch.
    """
    rows, length = document_ids_BT.shape
    place_T = torch.arange(length, device=document_ids_BT.device)
    before = F.pad(document_ids_BT, (1, 0), value=-1)[:, :-1]  # -1: every row begins with a document
    begins = (document_ids_BT != before) | ((document_ids_BT == 0) & (place_T % PADDING_PIECE == 0))
    return F.pad(begins.flatten().nonzero().squeeze(1), (0, 1), value=rows * length)


def widened(q: Tensor, k: Tensor, v: Tensor, step: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values with zeros up to the widest of them, rounded up to a multiple of `step`."""
    width = -(-max(q.shape[-1], v.shape[-1]) // step) * step
    q, k, v = (part if part.shape[-1] == width else F.pad(part, (0, width - part.shape[-1])) for part in (q, k, v))
    return q, k, v


def repeated(part: Tensor, heads: int, dim: int) -> Tensor:
    """Key-value heads along `dim` repeated for the `heads` that share them."""
    return part if part.shape[dim] == heads else part.repeat_interleave(heads // part.shape[dim], dim=dim)


def spelled_out_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float) -> Tensor:
    """`F.scaled_dot_product_attention` with an additive mask, as products and a softmax that a compiler fuses.

    The BF16 backward of torch's fused CPU kernel with a mask is about ten times slower than these. They make all T x T scores.
    """
    scores = torch.matmul(q, k.transpose(-1, -2)).float() * scale + mask
    return torch.matmul(scores.softmax(-1).to(v.dtype), v)
