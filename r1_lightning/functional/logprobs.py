"""Log-probabilities of given tokens under softmax(logits / sampling_temperature), in nats.

Everywhere in this project a policy's log-probs are those of softmax(logits / sampling_temperature): in the sampler, in the
training forward, and for the reference. Top-p changes which tokens are drawn, never these numbers.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

# Shape legend: N tokens, V vocabulary.


def token_logprobs(
    logits_NV: Float[Tensor, "*N V"], targets_N: Int[Tensor, "*N"], sampling_temperature: float
) -> Float[Tensor, "*N"]:
    """log softmax(logits / sampling_temperature)[target], ... x V and ... to ... (FP32)."""
    scaled = logits_NV.float() / sampling_temperature
    chosen = scaled.gather(-1, targets_N.unsqueeze(-1)).squeeze(-1)
    return chosen - scaled.logsumexp(-1)


@torch.no_grad()
def entropy(logits_NV: Float[Tensor, "*N V"], sampling_temperature: float) -> Float[Tensor, "*N"]:
    """Entropy of softmax(logits / sampling_temperature) per token, in nats: between 0 and ln V."""
    logprobs = (logits_NV.float() / sampling_temperature).log_softmax(-1)
    return -(logprobs.exp() * logprobs).sum(-1)
