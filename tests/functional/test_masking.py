"""Attention and targets stop at document borders."""

from __future__ import annotations

import pytest
import torch

from r1_lightning.functional.masking import document_attention_mask, targets_ahead, times_meant

INF = float("inf")


def test_attention_mask_of_two_documents_and_padding():
    # Documents: tokens 0-1, token 2, padding 3-4. Rows are queries, columns keys; padding sees earlier padding.
    mask = document_attention_mask(torch.tensor([[1, 1, 2, 0, 0]]))
    expected = [
        [0.0, -INF, -INF, -INF, -INF],
        [0.0, 0.0, -INF, -INF, -INF],
        [-INF, -INF, 0.0, -INF, -INF],
        [-INF, -INF, -INF, 0.0, -INF],
        [-INF, -INF, -INF, 0.0, 0.0],
    ]
    assert mask.shape == (1, 1, 5, 5)
    assert mask[0, 0].tolist() == expected


def test_attention_mask_of_documents_that_continue_a_prefix():
    """Documents 1, 2 and 3 of one token each, then padding; 2 and 3 continue 1: both see it, and not each other."""
    mask = document_attention_mask(torch.tensor([[1, 2, 3, 0]]), torch.tensor([[0, 1, 1, 0]]))
    seen = torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]], dtype=torch.bool)
    assert torch.equal(mask[0, 0] == 0, seen) and torch.equal(mask[0, 0] == float("-inf"), ~seen)


def test_a_token_stands_for_every_document_that_continues_its_own():
    """The docstring's row, and one without prefixes."""
    documents, prefixes = torch.tensor([[1, 1, 2, 3, 0], [1, 2, 2, 0, 0]]), torch.tensor([[0, 0, 1, 1, 0], [0] * 5])
    assert times_meant(documents, prefixes).tolist() == [[2, 2, 1, 1, 0], [1, 1, 1, 0, 0]]


def test_no_query_is_left_without_a_key():
    generator = torch.Generator().manual_seed(0)
    document_ids = torch.randint(0, 4, (8, 17), generator=generator)
    mask = document_attention_mask(document_ids)
    assert (mask.softmax(-1).isnan().sum(), (mask.diagonal(dim1=-2, dim2=-1) == 0).all()) == (0, True)


def test_attention_mask_against_its_definition():
    document_ids = torch.tensor([[1, 1, 1, 2, 2, 3, 0], [1, 2, 2, 2, 2, 2, 2]])
    mask = document_attention_mask(document_ids)
    for b in range(2):
        for query in range(7):
            for key in range(7):
                sees = key <= query and document_ids[b, query] == document_ids[b, key]
                assert mask[b, 0, query, key] == (0.0 if sees else -INF)


@pytest.mark.parametrize(
    ("places", "expected_targets", "expected_mask"),
    [
        # tokens    10 11 12 | 20 21 | padding
        # one on:   11 12 20   21  0    0: 12 would have to predict 20, across the border
        (1, [11, 12, 20, 21, 0, 0], [True, True, False, True, False, False]),
        # two on:   12 20 21    0  0    0
        (2, [12, 20, 21, 0, 0, 0], [True, False, False, False, False, False]),
    ],
)
def test_targets_ahead(places, expected_targets, expected_mask):
    tokens, documents = torch.tensor([[10, 11, 12, 20, 21, 0]]), torch.tensor([[1, 1, 1, 2, 2, 0]])
    targets, mask = targets_ahead(tokens, documents, places)
    assert (targets.tolist(), mask.tolist()) == ([expected_targets], [expected_mask])


def test_a_document_of_n_tokens_has_n_minus_places_targets():
    lengths = [5, 1, 2, 9]
    documents = torch.tensor([[i for i, length in enumerate(lengths, start=1) for _ in range(length)] + [0, 0]])
    for places in (1, 2, 3):
        _, mask = targets_ahead(torch.zeros_like(documents), documents, places)
        assert mask.sum() == sum(max(length - places, 0) for length in lengths)


def test_a_row_shorter_than_the_distance_has_no_targets():
    targets, mask = targets_ahead(torch.tensor([[7, 8]]), torch.tensor([[1, 1]]), 3)
    assert (targets.tolist(), mask.tolist()) == ([[0, 0]], [[False, False]])


def test_rows_do_not_influence_each_other():
    tokens, documents = torch.arange(12).view(2, 6), torch.tensor([[1, 1, 2, 2, 0, 0], [1, 1, 1, 1, 1, 2]])
    both = targets_ahead(tokens, documents, 1)
    for row in range(2):
        alone = targets_ahead(tokens[row : row + 1], documents[row : row + 1], 1)
        assert torch.equal(both[0][row : row + 1], alone[0])
        assert torch.equal(both[1][row : row + 1], alone[1])
        assert torch.equal(
            document_attention_mask(documents)[row], document_attention_mask(documents[row : row + 1])[0]
        )
