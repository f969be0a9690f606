"""The losses of the main head and the MTP modules (V3 eq 23-24), for pre-training, fine-tuning and, if configured, RL."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from r1_lightning.functional.cross_entropy import masked_cross_entropy
from r1_lightning.functional.masking import targets_ahead
from r1_lightning.types.processes import ONE, Processes
from r1_lightning.types.tensors import TokenBatch

# Shape legend: B rows, T positions, D model width.


def loss_ahead(
    backbone: Any,
    hidden_BTD: Tensor,
    batch: TokenBatch,
    places: int,
    only_targets_BT: Tensor | None = None,
    n_targets: Tensor | None = None,
    head_detached: bool = False,
    processes: Processes = ONE,
) -> Tensor:
    """Mean loss (nats) of predicting the token `places` positions ahead; 0 if no position has a target.

    Positions without a target are computed and left out of the mean, because selecting the others would cost more.

    `only_targets_BT` is False at targets to leave out (prompts). `n_targets` divides the sum instead of the number of targets
    found here and in the shares of the other `processes`, whose losses add up to the mean. With `head_detached` the loss does not
    train the head.
    """
    targets, has_target = targets_ahead(batch.token_ids, batch.document_ids, places)
    if only_targets_BT is not None:
        wanted, _ = targets_ahead(only_targets_BT.long(), batch.document_ids, places)
        has_target = has_target & wanted.bool()
    form = {"head_detached": True} if head_detached else {}  # backbones without MTP modules do not have this argument
    logprobs, _ = backbone.token_logprobs(hidden_BTD.flatten(0, 1), targets.flatten(), **form)
    if n_targets is None:
        n_targets = processes.sum(has_target.sum())
    return masked_cross_entropy(logprobs, has_target.flatten(), n_targets)
