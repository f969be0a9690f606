"""Which weights are no matrices that map hidden states to hidden states: those that are looked up, that score, or that convolve.

Muon orthogonalises a matrix because its singular values say how far it carries a vector of any direction (Jordan 2024). A row of an
embedding is looked up alone; a row of an output head, of a reward model's score or of a router scores one thing apart from all
others; a convolution is many small filters in one tensor. They keep AdamW. What decides is the module that owns a weight, since
families name the same thing `embed_tokens`, `wte` or `embed_in`. A tied head is one weight with its embedding, and so is decided
with it. LoRA's factors are mapped through, and so are `Conv1D`'s matrices, which GPT-2 stores as in x out.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from r1_lightning.model.language_model import LanguageModel
from r1_lightning.model.reward_head import RewardModel
from r1_lightning.model.router import Router

EXPERTS = "experts"  # the attribute of every mixture of `transformers` beside which its router stands
ROUTER_NAMES = ("gate", "router", "shared_expert_gate")


def unmapped(module: nn.Module) -> set[int]:
    """The ids of the parameters of `module` that embed, score, route or convolve: all that Muon must leave alone."""
    return {id(parameter) for part in module.modules() for parameter in _owned(part)}


def _owned(part: nn.Module) -> list[Tensor]:
    """Parameters that `part` says are of such a role: its own, or those of a child that it names its head or router."""
    if isinstance(part, nn.Embedding | nn.EmbeddingBag | _ConvNd | Router):
        return list(part.parameters())
    roles: list[Any] = []
    if isinstance(part, LanguageModel):
        roles.append(part.head)
    if isinstance(part, RewardModel):
        roles.append(part.score)
    if hasattr(part, EXPERTS):
        roles += [getattr(part, name, None) for name in ROUTER_NAMES]
    return [parameter for role in roles if isinstance(role, nn.Module) for parameter in role.parameters()]
