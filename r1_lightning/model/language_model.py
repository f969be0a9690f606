"""The output side of every backbone: logits from hidden states, and log-probs without making all logits at once.

Both need only the head, so our own backbone and the models of `transformers` share this code.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from r1_lightning.functional.logprobs import EAGER_TILES, Tiles, linear_argmax, linear_token_logprobs
from r1_lightning.model.precision import Precision, in_compute_type
from r1_lightning.types.tensors import BackboneOutput, TokenBatch


class LanguageModel(nn.Module, ABC):
    """Base class of backbones: implements `unembed` and `token_logprobs` from `hidden` and `head` (V x D, linear, no bias)."""

    precision: Precision
    head: Any
    tiles: Tiles = EAGER_TILES
    recompute = False  # true: the backward computes each block's forward again in place of keeping its activations

    @abstractmethod
    def hidden(self, batch: TokenBatch, with_mtp: bool = True, replayed_LBTK: Tensor | None = None) -> BackboneOutput:
        """Packed rows to normed hidden states B x T x D."""

    @abstractmethod
    def recompute_blocks(self) -> None:
        """Set `recompute`: of each block only the input is kept, at the price of a second forward; no bit of a result changes."""

    def forward(self, token_ids: Tensor) -> Tensor:
        """Rows of tokens without padding, B x T, to FP32 logits B x T x V."""
        return self.unembed(self.hidden(TokenBatch.of_whole_rows(token_ids), with_mtp=False).hidden)

    def unembed(self, hidden: Tensor) -> Tensor:
        """... x D to FP32 logits ... x V, in the type of decoding steps."""
        with self.precision.decoding(kind := hidden.device.type):
            logits: Tensor = self.head(hidden if torch.is_autocast_enabled(kind) else hidden.to(self.head.weight.dtype))
        return logits.float()

    def token_logprobs(
        self, hidden_ND: Tensor, targets_N: Tensor, sampling_temperature: float = 1.0, head_detached: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Log-probs of the targets and entropies, N each, without making all logits at once (see `functional.logprobs`).

        With `head_detached` no gradient flows into the head.
        """
        head_VD = self._head(hidden_ND)
        head_VD = head_VD.detach() if head_detached else head_VD
        return linear_token_logprobs(hidden_ND, head_VD, targets_N, sampling_temperature, self.tiles)

    def likeliest_tokens(self, hidden_ND: Tensor) -> Tensor:
        """The token ids with the largest logits, N, without making all logits at once."""
        return linear_argmax(hidden_ND, self._head(hidden_ND))

    def _head(self, hidden_ND: Tensor) -> Tensor:
        """The head's weight in the type of training's products, V x D."""
        with self.precision.autocast(hidden_ND.device.type):
            return in_compute_type(self.head.weight)
