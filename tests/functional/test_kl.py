"""Schulman's estimators of the KL divergence to the reference."""

from __future__ import annotations

import math

import pytest
import torch

from r1_lightning.functional.kl import k1, k2, k3


def _policies(seed: int = 0, v: int = 9) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probs of two distributions over V tokens, in double precision."""
    generator = torch.Generator().manual_seed(seed)
    draw = torch.randn(2, v, generator=generator, dtype=torch.float64)
    policy, ref = draw.log_softmax(-1)
    return policy, ref


def test_literal_numbers():
    # pi = 1/2, pi_ref = 1/4: x = log(pi_ref / pi) = -ln 2 = -0.6931472.
    # k1 = 0.6931472; k2 = 0.4804530 / 2 = 0.2402265; k3 = 1/2 + 0.6931472 - 1 = 0.1931472
    policy, ref = torch.tensor(math.log(0.5)), torch.tensor(math.log(0.25))
    assert k1(policy, ref).item() == pytest.approx(0.6931472, abs=1e-6)
    assert k2(policy, ref).item() == pytest.approx(0.2402265, abs=1e-6)
    assert k3(policy, ref).item() == pytest.approx(0.1931472, abs=1e-6)
    # From the other side: pi = 1/4, pi_ref = 1/2: k3 = 2 - ln 2 - 1 = 0.3068528. The two are not the same.
    assert k3(ref, policy).item() == pytest.approx(0.3068528, abs=1e-6)


def test_k3_is_never_negative_and_zero_only_at_equality():
    policy = torch.linspace(-12.0, 0.0, 101)
    for shift in (-8.0, -0.5, -1e-3, 1e-3, 0.5, 8.0):
        assert (k3(policy, policy + shift) > 0).all()
    assert torch.equal(k3(policy, policy), torch.zeros(101))
    assert torch.equal(k1(policy, policy), torch.zeros(101))
    assert torch.equal(k2(policy, policy), torch.zeros(101))


def test_k3_keeps_its_digits_near_equality():
    # For small x, e^x - 1 - x = x^2 / 2 + x^3 / 6. In FP32, exp(x) - 1 would leave nothing of 5e-9.
    x = 1e-4
    assert k3(torch.tensor(0.0), torch.tensor(x)).item() == pytest.approx(x**2 / 2 + x**3 / 6, rel=1e-2)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_k1_and_k3_have_the_true_divergence_as_their_mean(seed):
    """Summed over the whole vocabulary with the policy's own probabilities: no sampling, so exact."""
    policy, ref = _policies(seed)
    true_kl = (policy.exp() * (policy - ref)).sum()
    for estimator in (k1, k3):
        torch.testing.assert_close((policy.exp() * estimator(policy, ref)).sum(), true_kl, atol=1e-12, rtol=0)
    biased = (policy.exp() * k2(policy, ref)).sum()
    assert abs(biased - true_kl) > 1e-3


def test_gradient_of_k3_is_one_minus_the_ratio():
    # d k3 / d log pi = 1 - pi_ref / pi, the second term of DeepSeekMath's gradient coefficient (eq 21) with its sign
    policy, ref = _policies()
    policy.requires_grad_()
    k3(policy, ref).sum().backward()
    torch.testing.assert_close(policy.grad, 1 - (ref - policy.detach()).exp(), atol=1e-12, rtol=0)
    assert torch.autograd.gradcheck(lambda p: k3(p, ref), (policy,))


def test_elementwise_so_parts_equal_the_whole():
    policy, ref = _policies(v=10)
    for estimator in (k1, k2, k3):
        parts = torch.cat([estimator(policy[:4], ref[:4]), estimator(policy[4:], ref[4:])])
        assert torch.equal(parts, estimator(policy, ref))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_what_each_gradient_pulls_towards(seed):
    """Over the whole vocabulary, exactly: k1's mean gradient is zero, k2's that of KL[pi || ref], k3's of KL[ref || pi]."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(9, generator=generator, dtype=torch.float64, requires_grad=True)
    ref = torch.randn(9, generator=generator, dtype=torch.float64).log_softmax(-1)

    def gradient(loss_of_logprobs):
        return torch.autograd.grad(loss_of_logprobs(logits.log_softmax(-1)), logits)[0]

    def as_loss(estimator):
        return gradient(lambda policy: (policy.detach().exp() * estimator(policy, ref)).sum())

    forward = gradient(lambda policy: (policy.exp() * (policy - ref)).sum())
    backward = gradient(lambda policy: (ref.exp() * (ref - policy)).sum())
    torch.testing.assert_close(as_loss(k1), torch.zeros(9, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(as_loss(k2), forward, atol=1e-12, rtol=0)
    torch.testing.assert_close(as_loss(k3), backward, atol=1e-12, rtol=0)
    assert (forward - backward).abs().max() > 1e-2
