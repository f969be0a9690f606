"""The loss of predicting some places ahead, against a loop over tokens, with and without a mask of targets."""

from __future__ import annotations

import pytest
import torch

from r1_lightning.stages.mtp import loss_ahead
from tests.model.tiny import backbone, pack, random_documents, tiny


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("places", [1, 2, 3])
@torch.no_grad()
def test_against_a_loop_over_tokens(places: int, masked: bool) -> None:
    model, batch = (
        backbone(tiny()),
        pack([random_documents([6, 1, 9], 61, seed=0), random_documents([4, 2], 61, seed=1)]),
    )
    hidden = model.hidden(batch).hidden
    only = torch.rand(batch.token_ids.shape, generator=torch.Generator().manual_seed(2)) < 0.5 if masked else None
    losses = []
    for row, t in batch.is_token.nonzero().tolist():
        target = t + places
        if target >= batch.token_ids.shape[1] or batch.document_ids[row, target] != batch.document_ids[row, t]:
            continue
        if only is None or bool(only[row, target]):
            logprobs = model.unembed(hidden[row, t]).double().log_softmax(-1)
            losses.append(-logprobs[batch.token_ids[row, target]])
    assert len(losses) >= 2
    found = loss_ahead(model, hidden, batch, places, only)
    assert float(found) == pytest.approx(float(torch.stack(losses).mean()), abs=1e-5)


def test_no_target_at_all_is_a_loss_of_zero_with_a_gradient() -> None:
    model, batch = backbone(tiny()), pack([random_documents([1, 1], 61, seed=0)])
    loss = loss_ahead(model, model.hidden(batch).hidden, batch, 1)
    loss.backward()
    assert loss.item() == 0.0 and loss.requires_grad
