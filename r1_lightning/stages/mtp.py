"""The losses of the main head and the MTP modules (V3 eq 23-24), as pre-training, fine-tuning and, on request, RL have them."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from r1_lightning.functional.cross_entropy import masked_cross_entropy
from r1_lightning.functional.masking import targets_ahead
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
) -> Tensor:
    """Mean loss of predicting the token `places` ahead (nats); 0 where nothing has a target.

    Positions without a target are computed and left out of the mean: picking them out would cost more than they do.

    `only_targets_BT` leaves out targets where it is False: the prompts. `n_targets` is what the sum is divided by, where it is not
    the number of targets found here. With `head_detached` the loss does not train the head.
    """
    targets, has_target = targets_ahead(batch.token_ids, batch.document_ids, places)
    if only_targets_BT is not None:
        wanted, _ = targets_ahead(only_targets_BT.long(), batch.document_ids, places)
        has_target = has_target & wanted.bool()
    form = {"head_detached": True} if head_detached else {}  # only backbones with MTP modules know it
    logprobs, _ = backbone.token_logprobs(hidden_BTD.flatten(0, 1), targets.flatten(), **form)
    return masked_cross_entropy(logprobs, has_target.flatten(), n_targets)
