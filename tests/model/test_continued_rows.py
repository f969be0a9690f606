"""Documents that continue a prefix against the plain layout, in which each of them has that prefix before it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from r1_lightning.model import masked_attention
from r1_lightning.model.backbone import DeepSeekBackbone
from r1_lightning.model.continued_rows import (
    ContinuedRows,
    dense_rows,
    document_spans,
    folded,
    packed_attention,
    unfolded,
    with_gathered_keys,
)
from r1_lightning.model.gqa import GQAKind
from r1_lightning.model.masked_attention import DenseRows, DocumentRows, VariableLengthRows
from r1_lightning.types.tensors import BackboneOutput, TokenBatch
from tests.model.tiny import backbone, normal, random_documents, tiny

# Documents of each row as (length, prefix): a group of three, a lone document and a group of two; one group; no group; padding.
ROWS = [
    [(5, 0), (3, 1), (1, 1), (6, 1), (4, 0), (2, 0), (3, 6), (2, 6)],
    [(9, 0), (8, 1), (7, 1)],
    [(4, 0), (7, 0)],
    [],
]
LENGTH = 30
NO_MLA = dict.fromkeys(("q_lora_rank", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"), 0)
SHAPES = [(8, 8, 2, 2), (12, 8, 2, 2), (8, 8, 4, 2)]  # widths of queries and values, heads and key-value heads


def ids_of(rows: list[list[tuple[int, int]]], length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Document ids, prefix ids and positions."""
    document_ids, prefix_ids, positions = (torch.zeros(len(rows), length, dtype=torch.long) for _ in range(3))
    for row, documents in enumerate(rows):
        column = 0
        for number, (tokens, prefix) in enumerate(documents, 1):
            place = slice(column, column + tokens)
            document_ids[row, place], prefix_ids[row, place] = number, prefix
            first = documents[prefix - 1][0] if prefix else 0
            positions[row, place] = torch.arange(first, first + tokens)
            column += tokens
    return document_ids, prefix_ids, positions


DOCUMENTS, PREFIXES, POSITIONS = ids_of(ROWS, LENGTH)


def batch_of(vocab_size: int = 61) -> TokenBatch:
    """The rows with random tokens; what continues a prefix begins with its group's token, as the last tokens of one prompt do."""
    flat = torch.tensor(random_documents([DOCUMENTS.numel()], vocab_size - 2, seed=3)[0]).view_as(DOCUMENTS)
    token_ids = torch.where(DOCUMENTS > 0, flat, 0)
    firsts = (PREFIXES > 0) & (torch.nn.functional.pad(DOCUMENTS, (1, 0))[:, :-1] != DOCUMENTS)
    token_ids = torch.where(firsts, vocab_size - 2 + PREFIXES % 2, token_ids)
    return TokenBatch(token_ids, POSITIONS, DOCUMENTS, PREFIXES)


def test_spans_by_hand() -> None:
    """Two tokens, two documents of one token that continue them, padding."""
    document_ids, prefix_ids, _ = ids_of([[(2, 0), (1, 1), (1, 1)], [(1, 0)]], 5)
    found = document_spans(document_ids, prefix_ids)
    assert found == [(0, 2, 0, 0), (2, 3, 0, 2), (3, 4, 0, 2), (4, 5, 4, 4), (5, 6, 5, 5), (6, 10, 6, 6)]


def attended(rows: Any, shape: tuple[int, int, int, int]) -> list[Tensor]:
    """Output at tokens, and the gradients of a random direction of it."""
    width, value_width, heads, kv_heads = shape
    sizes = ((heads, width), (kv_heads, width), (kv_heads, value_width))
    parts = [normal(*DOCUMENTS.shape, *size, seed=i).requires_grad_() for i, size in enumerate(sizes)]
    output = rows(*parts, scale=shape[0] ** -0.5)
    is_token = (DOCUMENTS > 0)[..., None, None]
    (output * normal(*output.shape, seed=9) * is_token).sum().backward()
    return [output.detach() * is_token, *(part.grad for part in parts if part.grad is not None)]


def in_loops(q: Tensor, k: Tensor, v: Tensor, scale: float, static_shapes: bool = False) -> Tensor:
    """Token by token: the places of its prefix, those of its own document up to itself, and no others."""
    group, outputs = q.shape[2] // k.shape[2], []
    for row in range(len(q)):
        for t in range(LENGTH):
            own, prefix = int(DOCUMENTS[row, t]), int(PREFIXES[row, t])
            seen = [j for j in range(t + 1) if DOCUMENTS[row, j] == own or (prefix and DOCUMENTS[row, j] == prefix)]
            keys, values = (part[row, seen].repeat_interleave(group, 1) for part in (k, v))
            weights = (torch.einsum("nh,jnh->nj", q[row, t], keys) * scale).softmax(-1)
            outputs.append(torch.einsum("nj,jnu->nu", weights, values))
    return torch.stack(outputs).unflatten(0, q.shape[:2])


@pytest.fixture
def flash(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """`varlen_attn` with FlashAttention's published meaning: causal, aligned at the last query and key. Yields `max_k`s."""
    longest = []

    def varlen_attn(
        q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor, max_q: int, max_k: int, **options: Any
    ) -> Tensor:
        longest.append(max_k)
        outputs, group = [], q.shape[1] // k.shape[1]
        borders = zip(cu_q.tolist(), cu_q.tolist()[1:], cu_k.tolist(), cu_k.tolist()[1:], strict=False)
        for start, end, first, last in borders:
            keys, values = (part[first:last].repeat_interleave(group, 1) for part in (k, v))
            scores = torch.einsum("tnh,jnh->ntj", q[start:end], keys) * options["scale"]
            later = torch.ones(scores.shape[1:], dtype=torch.bool).triu(last - first - (end - start) + 1)
            weights = scores.masked_fill(later, float("-inf")).softmax(-1)
            outputs.append(torch.einsum("ntj,jnu->tnu", weights, values))
        return torch.cat(outputs)

    monkeypatch.setattr(masked_attention, "varlen_attn", varlen_attn)
    yield longest


@pytest.mark.parametrize("shape", SHAPES)
def test_every_kernel_is_the_attention_in_loops(shape: tuple[int, int, int, int], flash: list[int]) -> None:
    expected = attended(in_loops, shape)
    spans = document_spans(DOCUMENTS, PREFIXES)
    for rows in (
        dense_rows(DOCUMENTS, PREFIXES),
        ContinuedRows.of(spans, DOCUMENTS.device),
        with_gathered_keys(VariableLengthRows.of(DOCUMENTS), spans),
    ):
        for one, other in zip(attended(rows, shape), expected, strict=True):
            torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-4)
    assert flash == [LENGTH] and expected[0].abs().max() > 0.1  # the row of padding is the longest document


def test_the_kernels_are_chosen_by_length(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(packed_attention(DOCUMENTS, PREFIXES), DenseRows)
    monkeypatch.setattr(masked_attention, "MOST_DENSE_TOKENS", 8)
    assert isinstance(packed_attention(DOCUMENTS, PREFIXES), ContinuedRows)
    assert isinstance(packed_attention(DOCUMENTS, None), DocumentRows)


def test_documents_behind_each_other_look_at_their_prefix_in_one_call() -> None:
    """Of the first row a group of three behind 5 tokens, places 5 to 15, and one of two behind places 19 and 20."""
    rows = ContinuedRows.of(document_spans(DOCUMENTS, PREFIXES), DOCUMENTS.device)
    assert rows.shared == ((5, 15, 0, 5), (21, 26, 19, 21), (39, 54, 30, 39))


def test_documents_apart_look_at_their_prefix_in_calls_of_their_own() -> None:
    document_ids, prefix_ids, _ = ids_of([[(2, 0), (1, 1), (3, 0), (2, 1)]], 8)
    rows = ContinuedRows.of(document_spans(document_ids, prefix_ids), document_ids.device)
    assert rows.shared == ((2, 3, 0, 2), (6, 8, 0, 2))


def test_unfolded_by_hand() -> None:
    document_ids, prefix_ids, positions = ids_of([[(2, 0), (1, 1), (2, 1)], [(1, 0)]], 6)
    token_ids = torch.tensor([[7, 8, 9, 5, 6, 0], [4, 0, 0, 0, 0, 0]])
    plain, routes, back = unfolded(TokenBatch(token_ids, positions, document_ids, prefix_ids), None)
    assert plain.token_ids[0].tolist() == [7, 8, 9, 7, 8, 5, 6] and plain.token_ids[1, 0] == 4
    assert plain.position_ids[0].tolist() == [0, 1, 2, 0, 1, 2, 3]
    assert plain.document_ids.tolist() == [[2, 2, 2, 3, 3, 3, 3], [5, 0, 0, 0, 0, 0, 0]]
    assert back[0, :5].tolist() == [0, 1, 2, 5, 6] and back[1, 0] == 7 and plain.prefix_ids is None and routes is None


def outputs(
    model: DeepSeekBackbone, batch: TokenBatch, back: Tensor | None = None
) -> tuple[BackboneOutput, list[Tensor]]:
    """The output of a training forward, and the gradients of a direction of what continues prefixes or stands alone.

    Of MTP modules it leaves out the last positions of documents, whose next token is of another one.
    """
    model.zero_grad()
    output = model.train().hidden(batch)
    seen = output if back is None else folded(output, back)
    numbers = DOCUMENTS + 100 * torch.arange(4)[:, None]  # another one in every row
    is_prefix = torch.isin(numbers, (PREFIXES + 100 * torch.arange(4)[:, None])[PREFIXES > 0])
    is_inner = (torch.nn.functional.pad(DOCUMENTS[:, 1:], (0, 1)) == DOCUMENTS) | is_prefix
    inner, is_read = is_inner & (DOCUMENTS > 0), (DOCUMENTS > 0) & ~is_prefix
    direction = normal(*seen.hidden.shape, seed=5)
    total = (seen.hidden * direction * is_read[..., None]).sum()
    for hidden in seen.mtp:
        total = total + (hidden * direction * (is_read & inner)[..., None]).sum()
    total.backward()
    kept = dataclasses.replace(
        seen,
        hidden=seen.hidden * (DOCUMENTS > 0)[..., None],
        mtp=tuple(hidden * inner[..., None] for hidden in seen.mtp),
    )
    return kept, [p.grad for p in model.parameters() if p.grad is not None]


def assert_same(model: DeepSeekBackbone, tolerance: float = 1e-5) -> None:
    batch = batch_of()
    plain, _, back = unfolded(batch, None)
    found, grads = outputs(model, batch)
    expected, expected_grads = outputs(model, plain, back)
    torch.testing.assert_close(found.hidden, expected.hidden, atol=tolerance, rtol=1e-4)
    for one, other in zip(found.mtp, expected.mtp, strict=True):
        torch.testing.assert_close(one, other, atol=tolerance, rtol=1e-4)
    for one, other in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(one, other, atol=10 * tolerance, rtol=1e-3)
    assert len(grads) > 10 and all(grad.abs().max() > 0 for grad in grads)
    layers = len(found.expert_load) - len(model.mtp_modules)
    assert torch.equal(found.expert_load[:layers], expected.expert_load[:layers])


@pytest.mark.parametrize("most_dense", [256, 8])
@pytest.mark.parametrize(
    "changes",
    [
        {"mtp_depth": 1},
        {"mtp_depth": 0},
        {"mtp_depth": 2},
        {**NO_MLA, "attention_kind": GQAKind(n_kv_heads=1, head_dim=8)},
        {"n_layers": 4, "attention_kind": "lightning", "softmax_attention_every": 4, "mtp_depth": 0},
    ],
    ids=["mla", "no mtp", "two mtp modules", "gqa", "lightning"],
)
def test_a_model_gives_what_it_gives_in_the_plain_layout(
    changes: dict[str, Any], most_dense: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hidden states, those of MTP modules, gradients of every weight, and the load of experts: a prefix counts for each reader."""
    monkeypatch.setattr(masked_attention, "MOST_DENSE_TOKENS", most_dense)
    assert_same(backbone(tiny(**changes)))


def test_replayed_routes_go_with_their_tokens() -> None:
    model, batch = backbone(tiny(mtp_depth=0)).train(), batch_of()
    layers = sum(not block.is_dense for block in model.blocks)
    generator = torch.Generator().manual_seed(0)
    routes = torch.rand(layers, *DOCUMENTS.shape, 8, generator=generator).argsort(-1)[..., :2]
    found = model.hidden(batch, False, routes)
    plain, plain_routes, back = unfolded(batch, routes)
    expected = folded(model.hidden(plain, False, plain_routes), back)
    is_token = (DOCUMENTS > 0)[..., None]
    assert torch.equal(found.routes * is_token, routes * is_token)
    torch.testing.assert_close(found.hidden * is_token, expected.hidden * is_token, atol=1e-5, rtol=1e-4)
    assert torch.equal(found.expert_load, expected.expert_load)
    assert not torch.equal(found.hidden, model.hidden(batch, False).hidden)
