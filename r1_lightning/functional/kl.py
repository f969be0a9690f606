"""Estimators of KL[pi || pi_ref] from samples of pi (Schulman, "Approximating KL divergence").

With x = log pi_ref - log pi at a sampled token:

| estimator | expectation of the value under pi | expected gradient under pi, used as a loss |
|---|---|---|
| k1 = -x | KL[pi || pi_ref], a sample may be negative | d log pi: zero, so as a loss it does nothing |
| k2 = x^2 / 2 | biased, low variance | -x d log pi: the gradient of KL[pi || pi_ref] |
| k3 = e^x - x - 1 | KL[pi || pi_ref], never negative | (1 - e^x) d log pi: the gradient of KL[pi_ref || pi], the reverse |

k3 is DeepSeekMath eq 4 and R1 eq 2. So GRPO's penalty has the value of one divergence and the gradient of the other; close to
the reference they agree to second order. A test checks the table by enumerating a distribution.
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


# Estimators allowed as a penalty. k1's expected gradient is zero, so it would not penalise anything.
LOSS_ESTIMATORS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {"k2": k2, "k3": k3}
