"""A reward model: a backbone with a scalar head in place of the vocabulary (R1v2 section 3.1: that of R1).

The score of a response is read at its last token, EOS, which alone has seen all of it: one product, score(h_end). The head is a
linear layer without bias (pairwise training could not learn one), zero at first, so that every score begins at 0 and the
result depends on the backbone alone. The backbone's own head and MTP modules stay in the artefact as they came, untouched.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from r1_lightning.types.tensors import BackboneOutput, TokenBatch

# Shape legend: B rows, T positions, D model width, S sequences (responses), L layers with experts, E experts.

HEAD = "score.weight"  # its name in an artefact, which tells a reward model from a language model


class RewardModel(nn.Module):
    """`backbone` (a `Backbone` and `Balanced` with a V x D `head`: ours or `transformers`') and the layer D -> 1 that scores."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone: Any = backbone
        language_head: Any = self.backbone.head
        self.score = nn.Linear(language_head.weight.shape[1], 1, bias=False, device=language_head.weight.device)
        nn.init.zeros_(self.score.weight)

    def scores(self, tokens: TokenBatch, ends_S: Tensor) -> tuple[Tensor, BackboneOutput]:
        """Scores S (FP32) at the flat places `ends_S` of packed rows B x T, and the backbone's output."""
        output = self.backbone.hidden(tokens, with_mtp=False)
        hidden_SD = output.hidden.flatten(0, 1).index_select(0, ends_S)
        with torch.autocast(hidden_SD.device.type, enabled=False):  # a single product, and the number that counts
            return self.score(hidden_SD.float()).squeeze(-1), output

    def expert_bias(self) -> Tensor:
        """The backbone's routers' biases, L x E."""
        bias: Tensor = self.backbone.expert_bias()
        return bias

    def set_expert_bias(self, bias_LE: Tensor) -> None:
        """Write them."""
        self.backbone.set_expert_bias(bias_LE)
