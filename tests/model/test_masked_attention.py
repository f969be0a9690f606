"""Attention of packed rows: every implementation against the dense mask, and that against loops."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from r1_lightning.model import masked_attention
from r1_lightning.model.attention import KINDS
from r1_lightning.model.backbone import DeepSeekBackbone
from r1_lightning.model.config import ModelConfig
from r1_lightning.model.gqa import GQAKind
from r1_lightning.model.masked_attention import (
    MOST_DENSE_TOKENS,
    DenseRows,
    DocumentRows,
    RowAttention,
    VariableLengthRows,
    document_borders,
    row_attention,
)
from tests.model.tiny import backbone, normal, pack, random_documents, tiny

# Widths of queries and values, heads and key-value heads: equal widths, MLA's unequal ones both ways, grouped queries.
SHAPES = [(8, 8, 2, 2), (12, 8, 2, 2), (6, 8, 3, 3), (8, 8, 4, 2), (12, 8, 4, 1)]


def documents(rows: list[list[int]], length: int) -> Tensor:
    """Ids of documents of these lengths, and padding (0) up to `length`."""
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    for row, lengths in enumerate(rows):
        filled = torch.repeat_interleave(torch.arange(1, len(lengths) + 1), torch.tensor(lengths, dtype=torch.long))
        ids[row, : len(filled)] = filled
    return ids


def qkv(ids: Tensor, shape: tuple[int, int, int, int], seed: int = 0) -> list[Tensor]:
    width, value_width, heads, kv_heads = shape
    sizes = ((heads, width), (kv_heads, width), (kv_heads, value_width))
    return [normal(*ids.shape, *size, seed=seed + i).requires_grad_() for i, size in enumerate(sizes)]


def results(rows: RowAttention, ids: Tensor, shape: tuple[int, int, int, int]) -> list[Tensor]:
    """Output at tokens, and the gradients of a random direction of it."""
    parts = qkv(ids, shape)
    output = rows(*parts, scale=shape[0] ** -0.5)
    is_token = (ids > 0)[..., None, None]
    (output * normal(*output.shape, seed=9) * is_token).sum().backward()
    return [output.detach() * is_token, *(part.grad for part in parts)]


def assert_equal(found: list[Tensor], expected: list[Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-4)
    assert expected[0].abs().max() > 0.1 and expected[-1].abs().max() > 0.1  # a lone token has no gradient of its score


@pytest.fixture
def flash(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """`varlen_attn` with its published meaning and limits, in loops; yields the arguments of each call."""
    calls = []

    def varlen_attn(
        q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor, max_q: int, max_k: int, **options: Any
    ) -> Tensor:
        calls.append({"dtype": q.dtype, "width": q.shape[-1], "max": max_q, **options})
        assert k.shape[-1] == v.shape[-1] == q.shape[-1] and q.shape[-1] % 8 == 0 and q.shape[-1] <= 256
        assert cu_q.dtype == cu_k.dtype == torch.int32 and cu_q[0] == 0 and cu_q[-1] == len(q) and max_q == max_k
        assert options.get("enable_gqa", False) == (q.shape[1] != k.shape[1]) and options["window_size"] == (-1, 0)
        group, outputs = q.shape[1] // k.shape[1], []
        for start, end in zip(cu_q.tolist(), cu_q.tolist()[1:], strict=False):
            assert 0 < end - start <= max_q
            keys, values = (part[start:end].repeat_interleave(group, 1) for part in (k, v))
            scores = torch.einsum("inh,jnh->nij", q[start:end], keys) * options["scale"]
            future = torch.ones(end - start, end - start, dtype=torch.bool).triu(1)
            outputs.append(torch.einsum("nij,jnu->inu", scores.masked_fill(future, -math.inf).softmax(-1), values))
        return torch.cat(outputs)

    monkeypatch.setattr(masked_attention, "varlen_attn", varlen_attn)
    yield calls


def test_the_dense_mask_against_loops() -> None:
    """Two rows of documents of 3, 2 and 4, 1 tokens, and a token of padding each; two heads share a key."""
    ids = documents([[3, 2], [4, 1]], 6)
    q, k, v = qkv(ids, (4, 6, 2, 1))
    found = DenseRows.of(ids)(q, k, v, scale=0.5)
    for b, t in (ids > 0).nonzero().tolist():
        seen = [j for j in range(t + 1) if ids[b, j] == ids[b, t]]
        for n in range(2):
            weights = torch.stack([0.5 * q[b, t, n] @ k[b, j, 0] for j in seen]).softmax(0)
            expected = sum(w * v[b, j, 0] for w, j in zip(weights, seen, strict=True))
            torch.testing.assert_close(found[b, t, n], expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("rows", "length"), [([[1]], 1), ([[1, 1, 5], [7]], 7), ([[300, 1, 33], [2, 64]], 400), ([[], [129]], 129)]
)
@pytest.mark.parametrize("kind", [DocumentRows, VariableLengthRows])
def test_forward_and_gradient_equal_the_dense_mask(
    kind: Any, rows: list[list[int]], length: int, shape: tuple[int, int, int, int], flash: list[dict[str, Any]]
) -> None:
    ids = documents(rows, length)
    assert_equal(results(kind.of(ids), ids, shape), results(DenseRows.of(ids), ids, shape))
    assert len(flash) == (kind is VariableLengthRows)


@pytest.mark.parametrize("shares", [True, False])
def test_a_kernel_without_shared_heads_gets_them_repeated(
    shares: bool, flash: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch 2.11's `varlen_attn` has no `enable_gqa`: it must never see the argument."""
    monkeypatch.setattr(masked_attention, "SHARES_HEADS", shares)
    ids, shape = documents([[5, 3]], 9), (16, 16, 4, 2)
    assert_equal(results(VariableLengthRows.of(ids), ids, shape), results(DenseRows.of(ids), ids, shape))
    assert ["enable_gqa" in call for call in flash] == [shares]


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(24, 16, 2, 2), (16, 16, 4, 2)])
@pytest.mark.parametrize("rows", [[[4096]], [[1, 2047, 2048]], [[2500, 1, 1500], [64, 63, 3000, 65, 900]]])
def test_documents_of_up_to_4096_tokens_equal_the_dense_mask(
    rows: list[list[int]], shape: tuple[int, int, int, int], flash: list[dict[str, Any]]
) -> None:
    ids = documents(rows, 4096)
    expected = results(DenseRows.of(ids), ids, shape)
    for kind in (DocumentRows, VariableLengthRows):
        assert_equal(results(kind.of(ids), ids, shape), expected)


def test_borders_and_pieces_of_padding() -> None:
    """Two rows of 130: documents of 2, 1 and padding from 3 on, cut at 64 and 128; then one document over the whole row.

    The same id in two rows is two documents.
    """
    ids = documents([[2, 1], [130]], 130)
    assert document_borders(ids).tolist() == [0, 2, 3, 64, 128, 130, 260]
    assert DocumentRows.of(ids).lengths == (2, 1, 61, 64, 2, 130)
    rows = VariableLengthRows.of(ids)
    assert rows.borders.tolist() == [0, 2, 3, 64, 128, 130, 260] and rows.longest == 130


def test_the_choice_by_device_type_and_length(monkeypatch: pytest.MonkeyPatch) -> None:
    short, long = (torch.ones(1, length, dtype=torch.long) for length in (MOST_DENSE_TOKENS, MOST_DENSE_TOKENS + 1))
    assert isinstance(row_attention(short), DenseRows) and isinstance(row_attention(long), DocumentRows)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert row_attention(short).mask.dtype == torch.bfloat16  # made once in the type of products
        assert isinstance(row_attention(long), DocumentRows)


class OnAGPU:
    """Document ids that say they are on a GPU."""

    def __init__(self, ids: Tensor) -> None:
        self.ids, self.shape, self.device = ids, ids.shape, torch.device("cuda")


@pytest.mark.parametrize(
    ("products", "has_flash", "length", "expected"),
    [
        (torch.bfloat16, True, 4, "VariableLengthRows"),
        (torch.bfloat16, True, 9999, "VariableLengthRows"),
        (torch.float32, True, 4, "DenseRows"),  # FlashAttention has no FP32
        (torch.float32, True, 9999, "DocumentRows"),
        (torch.bfloat16, False, 9999, "DocumentRows"),
    ],
)
def test_the_choice_on_a_gpu(
    products: torch.dtype, has_flash: bool, length: int, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cuda, "is_flash_attention_available", lambda: has_flash)
    monkeypatch.setattr(masked_attention, "compute_type", lambda device: products)
    for name in ("DenseRows", "DocumentRows", "VariableLengthRows"):
        monkeypatch.setattr(getattr(masked_attention, name), "of", lambda ids, name=name: name)
    ids: Any = OnAGPU(torch.ones(1, length, dtype=torch.long))
    assert row_attention(ids) == expected


def test_flash_gets_the_type_of_products_and_its_widths(flash: list[dict[str, Any]]) -> None:
    ids = documents([[3, 2]], 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = VariableLengthRows.of(ids)(*qkv(ids, (12, 6, 2, 1)), scale=0.3)
    assert output.shape == (1, 6, 2, 6) and output.dtype == torch.bfloat16
    expected = {"dtype": torch.bfloat16, "width": 16, "max": 3, "scale": 0.3, "window_size": (-1, 0)}
    assert flash == [{**expected, "enable_gqa": True}]


def gqa() -> ModelConfig:
    without = {"q_lora_rank": 0, "kv_lora_rank": 0, "qk_nope_head_dim": 0, "qk_rope_head_dim": 0, "v_head_dim": 0}
    return tiny(**without, attention_kind=GQAKind(n_kv_heads=1, head_dim=8), max_positions=512)


def losses(model: DeepSeekBackbone, batch: Any) -> list[Tensor]:
    """Hidden states of trunk and MTP module at tokens, and the gradients of all weights."""
    model.zero_grad()
    output = model.hidden(batch)
    is_token = batch.is_token.unsqueeze(-1)
    total = sum((part * normal(*part.shape, seed=3) * is_token).sum() for part in (output.hidden, *output.mtp))
    total.backward()
    gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None and p.grad.abs().max() > 0.1]
    return [*(part.detach() * is_token for part in (output.hidden, *output.mtp)), *gradients]


@pytest.mark.parametrize("config", [tiny(max_positions=512), tiny(max_positions=512, v_head_dim=6), gqa()])
@pytest.mark.parametrize("kind", [DocumentRows, VariableLengthRows])
def test_a_whole_model_on_long_rows_equals_the_dense_mask(
    config: ModelConfig, kind: Any, monkeypatch: pytest.MonkeyPatch, flash: list[dict[str, Any]]
) -> None:
    model = backbone(config)
    batch = pack([random_documents([200, 1, 99], 61, seed=1), random_documents([270], 61, seed=2)], 310)

    def choosing(chosen: Callable[[Tensor], RowAttention]) -> list[Tensor]:
        monkeypatch.setattr("r1_lightning.model.continued_rows.row_attention", chosen)
        return losses(model, batch)

    found, expected = choosing(kind.of), choosing(DenseRows.of)
    assert len(found) == len(expected) > 10
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=2e-3, rtol=1e-4)  # sums over hundreds of tokens


def test_a_model_on_a_long_row_makes_no_matrix_of_its_length() -> None:
    """In forward and backward of 600 tokens no tensor has 600 x 600 numbers, whatever its shape."""
    from torch.utils._python_dispatch import TorchDispatchMode

    length, largest = 600, []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            parts = out if isinstance(out, tuple | list) else [out]
            largest.extend(part.numel() for part in parts if isinstance(part, Tensor))
            return out

    model = DeepSeekBackbone(tiny(max_positions=1024, v_head_dim=6, vocab_size=31))
    batch = pack([random_documents([length - 10, 10], 31, seed=1)])
    with Watch():
        model.hidden(batch).hidden.sum().backward()
    assert length < max(largest) < length**2 / 4


def test_the_kinds_take_their_rows_from_here() -> None:
    ids = torch.ones(1, 4, dtype=torch.long)
    for kind in (KINDS["mla"], GQAKind(1, 8)):
        assert isinstance(kind.row_mask(ids), DenseRows)


def test_rows_can_be_passed_through_tools_that_rebuild_arguments() -> None:
    """As FSDP does when it casts the inputs of a wrapped block."""
    rows = VariableLengthRows.of(torch.ones(1, 4, dtype=torch.long))
    assert torch.equal(dataclasses.replace(rows, borders=rows.borders.clone()).borders, rows.borders)


def test_blocks_computed_again_on_long_rows_have_the_same_bits() -> None:
    model = backbone(tiny(max_positions=512)).train()
    batch = pack([random_documents([200, 1, 99], 61, seed=1)])
    kept = losses(model, batch)
    model.recompute_blocks()
    assert all(torch.equal(one, other) for one, other in zip(losses(model, batch), kept, strict=True))
