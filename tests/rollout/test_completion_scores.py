"""Scores come back in the order of the rollout, however its rows were packed and divided."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from r1_lightning.rollout.completion_scores import completion_scores
from r1_lightning.rollout.scoring import completion_index
from r1_lightning.types.tensors import Generation, GRPOBatch
from tests.support.miniature import PAD

PROMPTS = [[1, 2], [3]]  # two completions each
IDS = torch.tensor([[4, 5, 6], [7, 0, 0], [8, 9, 0], [10, 11, 12]])
MASK = torch.tensor([[1, 1, 1], [1, 0, 0], [1, 1, 0], [1, 1, 1]]).bool()


def generation() -> Generation:
    zeros, nothing = torch.zeros(4, 3), torch.zeros((0, 0, 0, 0), dtype=torch.long)
    return Generation(IDS, MASK, zeros, zeros, torch.ones(4).bool(), nothing, nothing)


def scored(batch: GRPOBatch) -> Tensor:
    """A hundred times the token before, plus the token: only the right place gives this number."""
    ids, index = batch.tokens.token_ids.flatten(), completion_index(batch)
    return (100 * ids[index - 1] + ids[index]).double()


@pytest.mark.parametrize("scored_tokens", [1, 5, 10, 1000])
def test_each_token_gets_the_score_of_its_place(scored_tokens: int) -> None:
    """Rows take up to 2 + 3 tokens: one completion at a time, one, two, or all."""
    found = completion_scores(scored, PROMPTS, generation(), PAD, scored_tokens)
    assert found.dtype == torch.float32
    assert found.tolist() == [[204, 405, 506], [207, 0, 0], [308, 809, 0], [310, 1011, 1112]]


def test_no_gradient_is_kept_and_no_more_tokens_than_asked_for_come_at_once() -> None:
    seen: list[int] = []

    def watched(batch: GRPOBatch) -> Tensor:
        seen.append(batch.tokens.token_ids.numel())
        assert not torch.is_grad_enabled()
        return scored(batch)

    completion_scores(watched, PROMPTS, generation(), PAD, 10)
    assert len(seen) == 2 and max(seen) <= 10
