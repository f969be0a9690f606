"""Estimators of KL[pi || pi_ref] from samples of pi (Schulman, "Approximating KL divergence").

With x = log pi_ref - log pi at a sampled token: k1 = -x (unbiased, may be negative), k2 = x^2 / 2 (biased, low variance),
k3 = e^x - x - 1 (unbiased, never negative; DeepSeekMath eq 4 and R1 eq 2). That speaks of values: the gradient of k3, used
as a loss, is (1 - e^x) d log pi, which is the gradient of the reverse direction only in the mean over fresh samples.
"""

from __future__ import annotations

import torch
from torch import Tensor


def k1(policy_logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """log pi - log pi_ref, elementwise."""
    return policy_logprobs - ref_logprobs


def k2(policy_logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """(log pi_ref - log pi)^2 / 2, elementwise."""
    return (ref_logprobs - policy_logprobs).square() / 2


def k3(policy_logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """pi_ref / pi - log(pi_ref / pi) - 1, elementwise (DeepSeekMath eq 4)."""
    log_ratio = ref_logprobs - policy_logprobs
    return torch.expm1(log_ratio) - log_ratio
