"""Scores of packed rows against a forward over each text by itself, and the gradients that training takes from them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from r1_lightning.model.backbone import DeepSeekBackbone
from r1_lightning.rollout.collate import collate
from r1_lightning.rollout.scoring import completion_index, reference_logprobs, score_completions
from r1_lightning.types.tensors import GRPOBatch
from tests.model.tiny import backbone, pack, random_documents, tiny
from tests.rollout.fakes import MarkovBackbone, rollout_of

MODEL = tiny(mtp_depth=0)
PROMPTS = random_documents([5, 1, 8], 60, seed=1)
COMPLETIONS = random_documents([3, 7, 1, 12, 2, 9], 60, seed=2)
ROWS = torch.tensor([4, 0, 5, 2, 1, 3])


def batch_of(rows: Tensor = ROWS, row_tokens: int = 25) -> GRPOBatch:
    return collate(rollout_of(PROMPTS, COMPLETIONS, torch.zeros(3, 2)), rows, row_tokens, pad_id=0)


def alone(model: DeepSeekBackbone, row: int, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-probs and entropies of one completion's tokens, from its own text by itself."""
    prompt, completion = PROMPTS[row // 2], COMPLETIONS[row]
    hidden = model.hidden(pack([[[*prompt, *completion]]])).hidden[0]
    logprobs = (model.unembed(hidden[len(prompt) - 1 : -1]) / temperature).log_softmax(-1)
    return logprobs[torch.arange(len(completion)), torch.tensor(completion)], -(logprobs.exp() * logprobs).sum(-1)


def in_rows(batch: GRPOBatch, per_sequence: list[Tensor]) -> Tensor:
    """One value per completion token, sequence by sequence, in the order of the packed rows."""
    values = torch.zeros(batch.completion_mask.shape)
    for sequence, value in enumerate(per_sequence):
        values[(batch.sequence_ids == sequence) & batch.completion_mask] = value
    return values[batch.completion_mask]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@torch.no_grad()
def test_packed_scores_equal_those_of_each_text_alone(temperature: float) -> None:
    model, batch = backbone(MODEL), batch_of()
    assert len(batch.tokens.token_ids) < len(ROWS)  # several texts share a row
    scored = score_completions(model, batch, temperature)
    expected = [alone(model, int(row), temperature) for row in ROWS]
    assert scored.logprobs.shape == (34,)  # 3 + 7 + 1 + 12 + 2 + 9
    torch.testing.assert_close(
        scored.logprobs, in_rows(batch, [logprobs for logprobs, _ in expected]), atol=1e-5, rtol=0
    )
    entropy = torch.cat([entropies for _, entropies in expected]).mean()
    torch.testing.assert_close(scored.entropies.mean(), entropy, atol=1e-5, rtol=0)


def test_scores_by_hand() -> None:
    """Two tokens; after 0 they are equally likely, after 1 token 1 has 3/4: log 0.5 = -0.6931, log 0.75 = -0.2877."""
    model = MarkovBackbone(torch.tensor([[0.0, 0.0], [0.0, 3.0]]).exp().log() * torch.tensor([1.0, 1.0986123 / 3]))
    batch = collate(rollout_of([[0], [1]], [[1, 1], [0], [1], [1, 0]], torch.zeros(2, 2)), torch.arange(4), 20, 0)
    scored = score_completions(model, batch, 1.0)
    half, most, least = -0.6931472, -0.2876821, -1.3862944
    torch.testing.assert_close(scored.logprobs, torch.tensor([half, most, half, most, most, least]))
    # Entropies: ln 2 after 0 (twice); 0.75 * 0.2877 + 0.25 * 1.3863 = 0.5623 after 1 (four times).
    torch.testing.assert_close(scored.entropies.mean(), torch.tensor((2 * 0.6931472 + 4 * 0.5623351) / 6))


def test_the_index_is_that_of_completion_tokens() -> None:
    batch = collate(rollout_of([[7], [8]], [[1, 2], [3], [4], [5, 6]], torch.zeros(2, 2)), torch.tensor([0, 3]), 4, 0)
    assert batch.tokens.token_ids.tolist() == [[7, 1, 2, 0], [8, 5, 6, 0]]
    assert completion_index(batch).tolist() == [1, 2, 5, 6]


@torch.no_grad()
def test_splitting_a_minibatch_changes_no_score() -> None:
    model, temperature = backbone(MODEL), 0.7
    whole = score_completions(model, batch_of(), temperature).logprobs
    for parts in (ROWS.chunk(2), ROWS.chunk(6)):
        found = {}
        for rows in parts:
            batch = batch_of(rows, row_tokens=30)
            scores = torch.zeros(batch.completion_mask.shape)
            scores[batch.completion_mask] = score_completions(model, batch, temperature).logprobs
            for sequence, row in enumerate(rows.tolist()):
                found[row] = scores[(batch.sequence_ids == sequence) & batch.completion_mask]
        expected = in_rows(batch_of(), [found[int(row)] for row in ROWS])
        torch.testing.assert_close(whole, expected, atol=1e-5, rtol=0)


def test_gradients_flow_through_scores_and_not_through_entropy_or_the_reference() -> None:
    model, batch = backbone(MODEL), batch_of()
    scored = score_completions(model, batch, 1.0)
    assert scored.logprobs.requires_grad and not scored.entropies.requires_grad
    scored.logprobs.sum().backward()
    packed = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    torch.cat([alone(model, int(row), 1.0)[0] for row in ROWS]).sum().backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            scale = float(parameter.grad.abs().max())
            torch.testing.assert_close(packed[name], parameter.grad, atol=1e-5 * max(1.0, scale), rtol=1e-3)
    assert "head.weight" in packed and "embedding.weight" in packed
    reference = reference_logprobs(model, batch, 1.0)
    assert not reference.requires_grad
    assert torch.equal(reference, scored.logprobs.detach())


@torch.no_grad()
def test_only_tokens_before_count() -> None:
    """A change of the last token changes that token's score and no other."""
    model, batch = backbone(MODEL), batch_of(torch.tensor([3]), 30)
    changed = batch_of(torch.tensor([3]), 30)
    last = int(completion_index(batch)[-1])
    changed.tokens.token_ids[0, last] = (changed.tokens.token_ids[0, last] + 1) % 60
    before, after = (score_completions(model, b, 1.0).logprobs for b in (batch, changed))
    torch.testing.assert_close(before[:-1], after[:-1], atol=1e-6, rtol=0)
    assert float((before[-1] - after[-1]).abs()) > 1e-3


@torch.no_grad()
def test_mtp_modules_take_no_part() -> None:
    """Scoring needs the main head only: a model with MTP gives no hidden states of deeper predictions."""
    model = backbone(tiny(mtp_depth=2))
    assert score_completions(model, batch_of(), 1.0).output.mtp == ()
