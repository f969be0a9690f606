"""Logits and log-probs from hidden states and a head, whatever made them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from r1_lightning.model.language_model import LanguageModel
from r1_lightning.model.precision import PlainPrecision
from r1_lightning.types.tensors import BackboneOutput, TokenBatch


class _OneHot(LanguageModel):
    """Hidden states are the tokens' unit vectors, so that logits are the head's columns."""

    def __init__(self) -> None:
        super().__init__()
        self.precision = PlainPrecision()
        self.head = nn.Linear(3, 4, bias=False)

    def hidden(self, batch: TokenBatch, with_mtp: bool = True, replayed_LBTK: Tensor | None = None) -> BackboneOutput:
        return BackboneOutput.dense(torch.eye(3)[batch.token_ids])

    def recompute_blocks(self) -> None:
        """It has none."""


@torch.no_grad()
def test_logits_and_log_probs_by_hand() -> None:
    model = _OneHot()
    model.head.weight.copy_(torch.tensor([[0.0, 1.0, 2.0], [0.0, 0.0, 2.0], [0.0, 0.0, 2.0], [0.0, 0.0, 2.0]]))
    assert model(torch.tensor([[1, 0]])).tolist() == [[[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]]
    # Token 0 makes four equal logits: log 1/4 each, entropy log 4. Token 1 at temperature 1/log(3): e^log3 = 3 against three 1s.
    temperature = 1 / torch.log(torch.tensor(3.0)).item()
    hidden = torch.eye(3)[[0, 1]]
    logprobs, entropies = model.token_logprobs(hidden, torch.tensor([2, 0]), temperature)
    assert torch.allclose(logprobs, torch.tensor([0.25, 0.5]).log(), atol=1e-6)
    assert torch.allclose(entropies[0], torch.tensor(4.0).log(), atol=1e-6)
