"""The frozen reference policy that GRPO's KL term holds on to, refreshed every so often.

R1 replaces it by the current policy every 400 steps (Nature supplement, B.4), so that the policy can travel far in small
steps. It is a copy of the backbone that never has gradients; its weights are saved with the stage's checkpoint.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from r1_lightning.rollout.scoring import reference_logprobs
from r1_lightning.types.errors import require_int
from r1_lightning.types.tensors import GRPOBatch


class ReferencePolicy(nn.Module):
    """A frozen copy of `policy`; `refresh_every` optimizer steps (0: never) it becomes the policy of that moment."""

    backbone: Any  # an nn.Module that fits the `Backbone` Protocol

    def __init__(self, policy: nn.Module, refresh_every: int) -> None:
        super().__init__()
        require_int("stage.reference_refresh_steps", refresh_every, 0)
        self.backbone = copy.deepcopy(policy).requires_grad_(False).eval()
        self.refresh_every = refresh_every

    def train(self, mode: bool = True) -> ReferencePolicy:
        """Stays in evaluation mode: its forwards must not count expert load."""
        return super().train(False)

    def logprobs(self, batch: GRPOBatch, sampling_temperature: float, replay: bool = False) -> Tensor:
        """Log-probs of the minibatch's C completion tokens, without gradients; `replay` takes the sampler's experts."""
        return reference_logprobs(self.backbone, batch, sampling_temperature, replay)

    @torch.no_grad()
    def refresh_if_due(self, optimizer_steps: int, policy: nn.Module) -> bool:
        """Copy the policy's weights when `optimizer_steps` is a multiple of `refresh_every`; True where it did."""
        due = self.refresh_every > 0 and optimizer_steps > 0 and optimizer_steps % self.refresh_every == 0
        if due:
            self.backbone.load_state_dict(policy.state_dict())
        return due
