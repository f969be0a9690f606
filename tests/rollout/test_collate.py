"""Minibatches by reconstruction: each completion once, its log-probs beside its own tokens, its prompt never trained on."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from r1_lightning.rollout.collate import collate, minibatch_rows, minibatches, split_rows
from r1_lightning.rollout.groups import RolloutConfig
from r1_lightning.rollout.results import Rollout
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.tensors import GRPOBatch
from tests.rollout.fakes import rollout_of

PAD, EOS = 0, 1
PROMPTS = [[50, 51, 52], [60]]
COMPLETIONS = [[10, EOS], [11, 12, 13, EOS], [14], [15, 16, EOS], [17, 18, 19, 20], [EOS]]
GROUP_SIZE = 3


@pytest.fixture
def rollout() -> Rollout:
    return rollout_of(PROMPTS, COMPLETIONS, torch.zeros(2, GROUP_SIZE))


def rows(*numbers: int) -> Tensor:
    return torch.tensor(numbers)


def test_one_row_by_hand(rollout: Rollout) -> None:
    """Rows 1 and 5 take 3 + 4 and 1 + 1 tokens: 9 of 10 places. Token t of row r has log-prob -(r + t / 100)."""
    batch = collate(rollout, rows(1, 5), row_tokens=10, pad_id=PAD)
    assert batch.tokens.token_ids.tolist() == [[50, 51, 52, 11, 12, 13, EOS, 60, EOS, PAD]]
    assert batch.tokens.position_ids.tolist() == [[0, 1, 2, 3, 4, 5, 6, 0, 1, 0]]
    assert batch.tokens.document_ids.tolist() == [[1, 1, 1, 1, 1, 1, 1, 2, 2, 0]]
    assert batch.completion_mask.long().tolist() == [[0, 0, 0, 1, 1, 1, 1, 0, 1, 0]]
    assert batch.sequence_ids.tolist() == [[0, 0, 0, 0, 0, 0, 0, 1, 1, -1]]
    expected = torch.tensor([[0, 0, 0, -1.0, -1.01, -1.02, -1.03, 0, -5.0, 0]])
    torch.testing.assert_close(batch.old_logprobs, expected)
    torch.testing.assert_close(batch.sampler_logprobs, expected / 2)
    assert batch.advantages.tolist() == [[0, 0, 0, 1, 1, 1, 1, 0, 5, 0]]
    assert batch.completion_tokens.tolist() == [4.0, 1.0]
    assert (batch.n_sequences, batch.n_tokens, batch.policy_version) == (2, 5, 3)


def check_against_rollout(batch: GRPOBatch, rollout: Rollout, chosen: list[int]) -> None:
    """Every sequence of the batch, taken out of its row again, is what the rollout says of it."""
    for sequence, row in enumerate(chosen):
        prompt, completion = PROMPTS[row // GROUP_SIZE], COMPLETIONS[row]
        place = batch.sequence_ids == sequence
        assert batch.tokens.token_ids[place].tolist() == prompt + completion
        assert len(set(batch.tokens.document_ids[place].tolist())) == 1
        mask = batch.completion_mask[place].tolist()
        assert mask == [False] * len(prompt) + [True] * len(completion)
        for stored, kept in (
            (batch.old_logprobs, rollout.generation.policy_logprobs),
            (batch.sampler_logprobs, rollout.generation.sampler_logprobs),
        ):
            assert stored[place][: len(prompt)].tolist() == [0.0] * len(prompt)
            assert torch.equal(stored[place][len(prompt) :], kept[row, : len(completion)])
        assert batch.advantages[place].tolist() == [0.0] * len(prompt) + [row] * len(completion)
        assert float(batch.completion_tokens[sequence]) == len(completion)
    assert torch.equal(batch.sequence_ids == -1, batch.tokens.document_ids == 0)
    assert not bool(batch.completion_mask[batch.sequence_ids == -1].any())


@pytest.mark.parametrize("row_tokens", [7, 9, 40])
@pytest.mark.parametrize("chosen", [[0, 1, 2, 3, 4, 5], [5, 0, 3], [4, 2], [1]])
def test_every_sequence_is_whole_and_beside_its_own_numbers(
    rollout: Rollout, chosen: list[int], row_tokens: int
) -> None:
    batch = collate(rollout, rows(*chosen), row_tokens, PAD)
    check_against_rollout(batch, rollout, chosen)
    assert batch.tokens.token_ids.shape[1] == row_tokens
    assert batch.n_sequences == len(chosen)


def test_the_end_is_learned(rollout: Rollout) -> None:
    """EOS is a completion token: without it in the mask no policy would learn to stop."""
    batch = collate(rollout, rows(0, 1, 3, 5), 20, PAD)
    ends = batch.tokens.token_ids == EOS
    assert int(ends.sum()) == 4
    assert bool(batch.completion_mask[ends].all())


def test_a_row_that_is_too_short_is_named(rollout: Rollout) -> None:
    """Row 1 takes 3 + 4 tokens."""
    with pytest.raises(InvalidInput, match=r"rollout\.row_tokens=6 is not allowed: .* takes 7 tokens"):
        collate(rollout, rows(0, 1), 6, PAD)
    assert collate(rollout, rows(0, 1), 7, PAD).n_sequences == 2


@pytest.mark.parametrize(("n_rows", "n_minibatches"), [(512, 1), (512, 16), (12, 3), (6, 6)])
def test_minibatches_share_the_rollout_out(n_rows: int, n_minibatches: int) -> None:
    dealt = minibatch_rows(seed=4, number=9, n_rows=n_rows, n_minibatches=n_minibatches)
    assert [len(part) for part in dealt] == [n_rows // n_minibatches] * n_minibatches
    assert sorted(torch.cat(dealt).tolist()) == list(range(n_rows))


def test_groups_can_be_dealt_whole() -> None:
    dealt = minibatch_rows(seed=4, number=9, n_rows=24, n_minibatches=4, together=3)
    assert sorted(torch.cat(dealt).tolist()) == list(range(24))
    assert all(
        part.view(2, 3).tolist() == [[first, first + 1, first + 2] for first in part[::3].tolist()] for part in dealt
    )
    assert [int(part[0]) for part in dealt] != [0, 6, 12, 18]


def test_the_deal_is_random_and_belongs_to_seed_and_rollout() -> None:
    def order(seed: int, number: int) -> list[int]:
        return torch.cat(minibatch_rows(seed, number, 64, 4)).tolist()

    torch.manual_seed(1)
    first = order(0, 0)
    torch.manual_seed(2)
    assert order(0, 0) == first
    others = [order(0, 1), order(1, 0), order(0, 2), list(range(64))]
    assert all(other != first for other in others)
    # Of a random order about one element stays in its place; 8 or more do so once in 100,000.
    assert sum(place == row for place, row in enumerate(first)) < 8
    # Each minibatch has of every group of 16 rows about 4.
    groups = torch.tensor(first).view(4, 16) // 16
    assert all(1 <= int((part == group).sum()) <= 9 for part in groups for group in range(4))


def test_the_deal_is_pinned() -> None:
    """Another order would make a resumed run train on other minibatches than the run that was killed."""
    assert [part.tolist() for part in minibatch_rows(0, 0, 8, 2)] == [[6, 0, 3, 5], [4, 7, 1, 2]]


@pytest.mark.parametrize("n_minibatches", [1, 2, 3])
def test_minibatches_are_the_deal_collated(rollout: Rollout, n_minibatches: int) -> None:
    config = RolloutConfig(2, GROUP_SIZE, n_minibatches, max_new_tokens=4, row_tokens=16)
    batches = minibatches(rollout, config, seed=5, pad_id=PAD)
    dealt = minibatch_rows(5, rollout.number, 6, n_minibatches)
    assert len(batches) == n_minibatches
    for batch, chosen in zip(batches, dealt, strict=True):
        check_against_rollout(batch, rollout, chosen.tolist())
    seen = torch.cat([batch.advantages[batch.completion_mask] for batch in batches])
    assert seen.unique().tolist() == [0, 1, 2, 3, 4, 5]


def test_routes_lie_at_the_places_where_the_sampler_chose_them(rollout: Rollout) -> None:
    """One layer, one chosen expert. Row r's completion token t was predicted by expert 100 r + t, its prompt's token t (but
    the last) by 100 r + 50 + t. Rows 1 and 5 lie as in the first test; the last token of each predicts nothing.
    """
    width = rollout.generation.completion_mask.shape[1]
    rows_RT = 100 * torch.arange(6)[:, None]
    routes = (rows_RT + torch.arange(width))[None, :, :, None]
    prompt_routes = (rows_RT + 50 + torch.arange(2))[None, :, :, None]
    prompt_routes[:, 3:] = -1  # the second prompt has a single token, so nothing before its last
    recorded = dataclasses.replace(rollout.generation, routes=routes, prompt_routes=prompt_routes)
    batch = collate(dataclasses.replace(rollout, generation=recorded), rows(1, 5), row_tokens=10, pad_id=PAD)
    assert batch.routes is not None and batch.routes[0, :, :, 0].tolist() == [
        [150, 151, 100, 101, 102, 103, -1, 500, -1, -1]
    ]
    assert collate(rollout, rows(1, 5), row_tokens=10, pad_id=PAD).routes is None


def test_truncated_completions_can_be_left_out_of_the_loss(rollout: Rollout) -> None:
    """Rows 1 (4 tokens) and 5 (1 token), row 1 cut off: still a sequence of the mean, no longer a token of it."""
    finished = torch.tensor([True, False, True, True, True, True])
    cut = dataclasses.replace(rollout, generation=dataclasses.replace(rollout.generation, finished=finished))
    batch = collate(cut, rows(1, 5), row_tokens=10, pad_id=PAD, train_on_truncated=False)
    assert batch.completion_mask.long().tolist() == [[0, 0, 0, 0, 0, 0, 0, 0, 1, 0]]
    assert (batch.n_sequences, batch.n_tokens) == (2, 1)
    assert collate(cut, rows(1, 5), row_tokens=10, pad_id=PAD).n_tokens == 5


@pytest.mark.parametrize("parts", [1, 2, 3, 5])
def test_parts_of_a_minibatch_hold_its_rows_in_order_and_its_denominators(rollout: Rollout, parts: int) -> None:
    """Six completions in three rows of 9; with five parts the last two hold nothing to learn from."""
    batch = collate(rollout, torch.arange(6), row_tokens=9, pad_id=PAD)
    assert len(batch.completion_mask) == 3
    split = split_rows(batch, parts)
    assert len(split) == parts and all((part.n_sequences, part.n_tokens) == (6, 15) for part in split)
    filled = split[:3]
    for name in ("completion_mask", "old_logprobs", "sampler_logprobs", "sequence_ids", "advantages"):
        assert torch.equal(torch.cat([getattr(part, name) for part in filled]), getattr(batch, name)), name
    assert torch.equal(torch.cat([part.tokens.token_ids for part in filled]), batch.tokens.token_ids)
    assert not any(bool(part.completion_mask.any() or part.tokens.is_token.any()) for part in split[3:])
    assert all(part.completion_mask.shape == (1, 1) for part in split[3:])
    assert all(torch.equal(part.completion_tokens, batch.completion_tokens) for part in split)
