"""Attention masks and prediction targets of packed rows.

Several documents share a row (see `types/tensors.py`); neither attention nor targets cross the border between two.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

# Shape legend: B rows, T positions.


def document_attention_mask(
    document_ids_BT: Int[Tensor, "B T"], prefix_ids_BT: Int[Tensor, "B T"] | None = None
) -> Float[Tensor, "B 1 T T"]:
    """Additive mask B x 1 x T x T (0 or -inf): a token sees itself and the earlier tokens of its own document and of its prefix.

    Padding (id 0) counts as a document of its own, so that no row of the softmax is empty. The mask is additive because
    fused CPU attention would convert a boolean one in every layer.
    """
    same_BTT = document_ids_BT[:, :, None] == document_ids_BT[:, None, :]
    if prefix_ids_BT is not None:  # 0 is no prefix: it must not match padding
        same_BTT = same_BTT | (
            (prefix_ids_BT[:, :, None] == document_ids_BT[:, None, :]) & (prefix_ids_BT > 0)[:, :, None]
        )
    causal_TT = torch.ones(same_BTT.shape[-2:], dtype=torch.bool, device=same_BTT.device).tril()
    allowed = (same_BTT & causal_TT).unsqueeze(1)
    return torch.zeros(allowed.shape, device=allowed.device).masked_fill_(~allowed, float("-inf"))


def targets_ahead(
    token_ids_BT: Int[Tensor, "B T"], document_ids_BT: Int[Tensor, "B T"], places: int
) -> tuple[Int[Tensor, "B T"], Bool[Tensor, "B T"]]:
    """Targets B x T, the token `places` positions ahead, and a mask B x T, True where that token is in the same document."""
    targets = F.pad(token_ids_BT, (0, places))[:, places:]  # padded first: a row may be shorter than `places`
    target_documents = F.pad(document_ids_BT, (0, places))[:, places:]
    return targets, (target_documents == document_ids_BT) & (document_ids_BT > 0)


def times_meant(document_ids_BT: Int[Tensor, "B T"], prefix_ids_BT: Int[Tensor, "B T"]) -> Int[Tensor, "B T"]:
    """How many documents each token stands for: those that continue it where it is a prefix, 1 elsewhere, 0 on padding.

    Example: of the documents 1 1 2 3 0 with prefixes 0 0 1 1 0, the tokens stand for 2 2 1 1 0.
    """
    begins_BT = document_ids_BT != F.pad(document_ids_BT, (1, 0))[:, :-1]
    rows, length = document_ids_BT.shape
    first_R1 = (length + 1) * torch.arange(rows, device=document_ids_BT.device)[
        :, None
    ]  # a row has at most T documents
    # Flat, because GPUs add deterministically in one dimension only.
    places = (prefix_ids_BT + first_R1).flatten()
    continued = document_ids_BT.new_zeros(rows * (length + 1)).scatter_add(0, places, begins_BT.long().flatten())
    return continued[document_ids_BT + first_R1].clamp(min=1) * (document_ids_BT > 0)
