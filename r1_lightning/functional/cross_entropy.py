"""Next-token cross-entropy and the MTP loss beside it (V3 eq 23-25), over masked tokens.

    L = CE(main) + (lambda / D) * sum over depths k of CE(depth k)

Both are means over the tokens whose target exists in the same document. Eq 24 divides by the sequence length T also for
deeper depths, which have fewer targets; here each depth is the mean over its own targets, so that packing and document
borders do not change its weight.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

# Shape legend: N tokens.


def masked_cross_entropy(
    logprobs_N: Float[Tensor, "N"], mask_N: Bool[Tensor, "N"], n_tokens: Int[Tensor, ""] | None = None
) -> Float[Tensor, ""]:
    """Return the mean of -log p(target) over the tokens where `mask` is True (nats); 0 if there is none.

    With `n_tokens` the sum is divided by `n_tokens` instead: given the target count of the whole optimizer step, the losses of its
    micro-batches add up to the step's mean.
    """
    mask_N = mask_N.to(logprobs_N.dtype)
    return -(logprobs_N * mask_N).sum() / (mask_N.sum() if n_tokens is None else n_tokens).clamp(min=1)


def mtp_loss(depth_losses: Sequence[Float[Tensor, ""]], mtp_loss_weight: float) -> Float[Tensor, ""]:
    """(lambda / D) * sum of the depths' losses (V3 eq 25); 0 without MTP modules."""
    if not depth_losses:
        return torch.zeros(())
    return mtp_loss_weight * torch.stack(list(depth_losses)).mean()
