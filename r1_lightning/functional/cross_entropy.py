"""Next-token cross-entropy and the MTP loss beside it (V3 eq 23-25), over masked tokens.

    L = CE(main) + (lambda / D) * sum over depths k of CE(depth k)

Both are means over the tokens whose target exists in the same document. Eq 24 divides by the sequence length T also for
deeper depths, which have fewer targets; here each depth is the mean over its own targets, so that packing and document
borders do not change its weight.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

# Shape legend: N tokens, V vocabulary.


def masked_cross_entropy(
    logits_NV: Float[Tensor, "N V"], targets_N: Int[Tensor, "N"], mask_N: Bool[Tensor, "N"]
) -> Float[Tensor, ""]:
    """Mean of -log softmax(logits)[target] over the tokens where `mask` is True; 0 where there is none (nats)."""
    per_token_N = F.cross_entropy(logits_NV.float(), targets_N, reduction="none")
    mask_N = mask_N.to(per_token_N.dtype)
    return (per_token_N * mask_N).sum() / mask_N.sum().clamp(min=1)


def mtp_loss(depth_losses: Sequence[Float[Tensor, ""]], mtp_loss_weight: float) -> Float[Tensor, ""]:
    """(lambda / D) * sum of the depths' losses (V3 eq 25); 0 without MTP modules."""
    if not depth_losses:
        return torch.zeros(())
    return mtp_loss_weight * torch.stack(list(depth_losses)).mean()
