"""Next-token cross-entropy and the MTP loss beside it (V3 eq 23-25), over masked tokens.

    L = CE(main) + (lambda / D) * sum over depths k of CE(depth k)

Both are means over the tokens whose target exists in the same document. Eq 24 divides by the sequence length T also for
deeper depths, which have fewer targets; here each depth is the mean over its own targets, so that packing and document
borders do not change its weight.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

# Shape legend: N tokens.


def masked_cross_entropy(logprobs_N: Float[Tensor, "N"], mask_N: Bool[Tensor, "N"]) -> Float[Tensor, ""]:
    """Mean of minus the targets' log-probs over the tokens where `mask` is True; 0 where there is none (nats)."""
    mask_N = mask_N.to(logprobs_N.dtype)
    return -(logprobs_N * mask_N).sum() / mask_N.sum().clamp(min=1)


def mtp_loss(depth_losses: Sequence[Float[Tensor, ""]], mtp_loss_weight: float) -> Float[Tensor, ""]:
    """(lambda / D) * sum of the depths' losses (V3 eq 25); 0 without MTP modules."""
    if not depth_losses:
        return torch.zeros(())
    return mtp_loss_weight * torch.stack(list(depth_losses)).mean()
