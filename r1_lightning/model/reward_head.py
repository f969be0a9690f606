"""A reward model: a backbone with a scalar head in place of the vocabulary (R1v2 section 3.1: that of R1).

The score of a response is one product, score(h_end), at its last token, EOS, which alone attends to the whole response. The head
is a linear layer without bias (pairwise training cannot learn one) and begins at zero, so every score begins at 0 and training
depends on the backbone alone. The backbone's own output head and MTP modules stay unchanged in the artefact.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from r1_lightning.types.tensors import BackboneOutput, TokenBatch

# Shape legend: B rows, T positions, D model width, S sequences (responses), L layers with experts, E experts.

HEAD = "score.weight"  # the head's name in an artefact; only reward models have it


class RewardModel(nn.Module):
    """A `backbone` (a `Backbone` and `Balanced` with a V x D `head`: ours or `transformers`') with a scoring layer D -> 1."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone: Any = backbone
        language_head: Any = self.backbone.head
        self.score = nn.Linear(language_head.weight.shape[1], 1, bias=False, device=language_head.weight.device)
        nn.init.zeros_(self.score.weight)

    def scores(self, tokens: TokenBatch, ends_S: Tensor) -> tuple[Tensor, BackboneOutput]:
        """Return scores S (FP32) at the flat positions `ends_S` of packed rows B x T, and the backbone's output."""
        output = self.backbone.hidden(tokens, with_mtp=False)
        hidden_SD = output.hidden.flatten(0, 1).index_select(0, ends_S)
        with torch.autocast(
            hidden_SD.device.type, enabled=False
        ):  # FP32: the score is the result, and one product is cheap
            return self.score(hidden_SD.float()).squeeze(-1), output

    def expert_bias(self) -> Tensor:
        """The backbone's routers' biases, L x E."""
        bias: Tensor = self.backbone.expert_bias()
        return bias

    def set_expert_bias(self, bias_LE: Tensor) -> None:
        """Write them."""
        self.backbone.set_expert_bias(bias_LE)
