"""Pre-training: L = CE + (lambda / D) sum_k CE_k + balance, against loops over tokens in double precision."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from r1_lightning.stages.base import AdamWConfig
from r1_lightning.stages.pretrain import PretrainModule
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.tensors import TokenBatch
from tests.model.tiny import pack
from tests.support.miniature import Batches, Miniature, backbone, backwards, trainer

DOCUMENTS = [[[1, 2, 3, 4], [5, 6, 7]], [[8, 9], [3], [2, 2, 2]]]


@torch.no_grad()
def loss_by_loops(model: Any, batch: TokenBatch, places: int) -> float:
    """Mean of -log p(token `places` ahead) over tokens that have one in their document, token by token."""
    output = copy.deepcopy(model).train().hidden(batch)
    hidden = (output.hidden, *output.mtp)[places - 1]
    terms = []
    rows, length = batch.token_ids.shape
    for row in range(rows):
        for t in range(length - places):
            here, there = int(batch.document_ids[row, t]), int(batch.document_ids[row, t + places])
            if here == there and here > 0:
                logits = model.unembed(hidden[row, t]).double().tolist()
                target = logits[int(batch.token_ids[row, t + places])]
                terms.append(math.log(math.fsum(math.exp(x) for x in logits)) - target)
    return math.fsum(terms) / len(terms)


@pytest.mark.parametrize("depth", [1, 2])
def test_loss_is_that_of_loops_over_tokens(tmp_path: Path, depth: int) -> None:
    model = backbone(mtp_depth=depth, balance_loss_alpha=0.5)
    batch = pack(DOCUMENTS, 9)
    main = loss_by_loops(model, batch, 1)
    ahead = [loss_by_loops(model, batch, places) for places in range(2, depth + 2)]
    balance = copy.deepcopy(model).train().hidden(batch).balance_loss.item()
    miniature = Miniature(model=model, max_steps=1)
    step = backwards(miniature.pretrain(mtp_loss_weight=0.3), [batch], tmp_path)[0]
    assert balance > 0.3  # alpha 0.5 times at least 1 per mixture layer, nearly
    assert step.loss == pytest.approx(main + 0.3 * sum(ahead) / depth + balance, rel=2e-6)
    assert step.metrics["train/loss"] == pytest.approx(main, rel=2e-6)
    assert step.metrics["train/mtp_loss"] == pytest.approx(0.3 * sum(ahead) / depth, rel=2e-6)
    assert step.metrics["train/balance_loss"] == pytest.approx(balance, rel=1e-6)


def test_padding_changes_nothing(tmp_path: Path) -> None:
    # Balance off: padding leaves it alone as well, but its sequences are rows, which stay the same here anyway.
    steps = []
    for length in (9, 15):
        miniature = Miniature(model=backbone(balance_loss_alpha=0.0), max_steps=1)
        steps.append(backwards(miniature.pretrain(), [pack(DOCUMENTS, length)], tmp_path)[0])
    assert steps[1].loss == pytest.approx(steps[0].loss, rel=1e-6)
    for name, gradient in steps[0].gradients.items():
        torch.testing.assert_close(steps[1].gradients[name], gradient, rtol=1e-4, atol=1e-6)


def test_documents_alone_weigh_as_many_as_they_have_targets(tmp_path: Path) -> None:
    # 3 + 2 targets in the first row, 1 + 0 + 2 in the second: the whole is (5 * first + 3 * second) / 8.
    def loss(rows: Any) -> float:
        miniature = Miniature(model=backbone(balance_loss_alpha=0.0), max_steps=1)
        return backwards(miniature.pretrain(mtp_loss_weight=0.0), [pack(rows, 9)], tmp_path)[0].loss

    whole, first, second = loss(DOCUMENTS), loss(DOCUMENTS[:1]), loss(DOCUMENTS[1:])
    assert whole == pytest.approx((5 * first + 3 * second) / 8, rel=1e-6)
    assert abs(first - second) > 0.01


def test_weight_zero_leaves_the_mtp_modules_untrained(tmp_path: Path) -> None:
    miniature = Miniature(max_steps=1)
    step = backwards(miniature.pretrain(mtp_loss_weight=0.0), [pack(DOCUMENTS)], tmp_path)[0]
    assert not any(name.startswith("mtp_modules") for name in step.gradients)
    assert step.metrics["train/mtp_loss"] == 0.0
    trained = backwards(Miniature(max_steps=1).pretrain(mtp_loss_weight=0.3), [pack(DOCUMENTS)], tmp_path)[0]
    assert any(name.startswith("mtp_modules") for name in trained.gradients)


def test_it_learns_what_it_is_shown(tmp_path: Path) -> None:
    # One document again and again: what follows what is soon certain, and the loss far below ln 18 = 2.89 of guessing.
    batch = pack([[[1, 2, 3, 4, 5, 6, 7]]])
    miniature = Miniature(max_steps=40, optim=AdamWConfig(lr=0.02))
    fit = trainer(40, tmp_path)
    fit.fit(miniature.pretrain(), Batches([batch] * 40))
    assert float(fit.callback_metrics["train/loss"]) < 0.2


def test_a_bad_weight_is_named() -> None:
    with pytest.raises(InvalidInput, match=r"stage\.mtp_loss_weight=-0\.1"):
        PretrainModule(backbone(), AdamWConfig(lr=0.1), 1, mtp_loss_weight=-0.1)
