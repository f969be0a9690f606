"""Finds the weights that Muon must not train: embeddings, heads, routers and convolutions.

Muon orthogonalises a matrix that maps hidden states to hidden states, whose singular values say how far it moves a vector of any
direction (Jordan 2024). The rows of an embedding are looked up one at a time; each row of an output head, of a reward model's
score or of a router scores one item apart from all others; a convolution is many small filters in one tensor. AdamW trains these.
The module that owns a weight decides, because model families call the same weight `embed_tokens`, `wte` or `embed_in`. A tied head
is one weight with its embedding and goes with it. Muon does train LoRA's factors, and `Conv1D`'s matrices, which GPT-2 stores as
in x out.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from r1_lightning.model.language_model import LanguageModel
from r1_lightning.model.reward_head import RewardModel
from r1_lightning.model.router import Router

EXPERTS = "experts"  # every MoE layer of `transformers` has this attribute, and its router beside it
ROUTER_NAMES = ("gate", "router", "shared_expert_gate")


def unmapped(module: nn.Module) -> set[int]:
    """Return the ids of the parameters of `module` that embed, score, route or convolve, which Muon must not train."""
    return {id(parameter) for part in module.modules() for parameter in _owned(part)}


def _owned(part: nn.Module) -> list[Tensor]:
    """Return the parameters with such a role that `part` owns: its own, or those of its child named head or router."""
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
