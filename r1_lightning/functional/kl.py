"""Estimators of KL[pi || pi_ref] from samples of pi (Schulman, "Approximating KL divergence").

With x = log pi_ref - log pi at a sampled token:

| estimator | its value, in the mean over pi | its gradient used as a loss, in the mean over pi |
|---|---|---|
| k1 = -x | KL[pi || pi_ref], may be negative | d log pi: zero. As a loss it holds nothing back |
| k2 = x^2 / 2 | biased, low variance | -x d log pi: the gradient of KL[pi || pi_ref] |
| k3 = e^x - x - 1 | KL[pi || pi_ref], never negative | (1 - e^x) d log pi: the gradient of KL[pi_ref || pi], the other way round |

k3 is DeepSeekMath eq 4 and R1 eq 2. So GRPO's penalty has the value of the one divergence and pulls like the other; close to
the reference they agree to second order. The table is tested by enumerating a distribution.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor


def k1(policy_logprobs: Float[Tensor, "*shape"], ref_logprobs: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """log pi - log pi_ref, elementwise."""
    return policy_logprobs - ref_logprobs


def k2(policy_logprobs: Float[Tensor, "*shape"], ref_logprobs: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """(log pi_ref - log pi)^2 / 2, elementwise."""
    return (ref_logprobs - policy_logprobs).square() / 2


def k3(policy_logprobs: Float[Tensor, "*shape"], ref_logprobs: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """pi_ref / pi - log(pi_ref / pi) - 1, elementwise (DeepSeekMath eq 4)."""
    log_ratio = ref_logprobs - policy_logprobs
    return torch.expm1(log_ratio) - log_ratio


# Those that can stand in a loss: k1's gradient is zero in the mean, so a penalty of k1 would be one in name only.
LOSS_ESTIMATORS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {"k2": k2, "k3": k3}
