"""RMSNorm: y = x / sqrt(mean(x^2) + eps) * weight, in FP32."""

from __future__ import annotations

import pytest
import torch

from r1_lightning.model.norm import RMSNorm, norm_bytes
from tests.model.tiny import normal


def _norm(width: int, eps: float, seed: int = 0) -> RMSNorm:
    norm = RMSNorm(width, eps)
    with torch.no_grad():
        norm.weight.copy_(normal(width, seed=seed))
    return norm


def test_literal_numbers():
    # x = (3, 4): mean square 12.5, root 3.5355339: (0.8485281, 1.1313708). Weight (2, -1): (1.6970563, -1.1313708).
    norm = RMSNorm(2, 1e-12)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([2.0, -1.0]))
    assert norm(torch.tensor([3.0, 4.0])).tolist() == pytest.approx([1.6970563, -1.1313708], abs=1e-6)


def test_eps_is_under_the_root():
    # x = (0, 0.001): mean square 5e-7; with eps 5e-7 the root is 0.001: y = (0, 1).
    assert RMSNorm(2, 5e-7)(torch.tensor([0.0, 0.001])).tolist() == pytest.approx([0.0, 1.0], abs=1e-5)


def test_starts_as_a_pure_normalisation_to_unit_root_mean_square():
    y = RMSNorm(32, 1e-6)(normal(5, 7, 32) * 40)
    torch.testing.assert_close(y.square().mean(-1), torch.ones(5, 7), atol=1e-5, rtol=0)


def test_against_huggingface():
    from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3RMSNorm

    ours, theirs = _norm(24, 1e-5), DeepseekV3RMSNorm(24, eps=1e-5)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    x = 3 * normal(4, 6, 24, seed=1)
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-6, rtol=0)


def test_bf16_input_is_normalised_in_fp32():
    norm, x = _norm(512, 1e-6), (100 * normal(3, 512, seed=1)).bfloat16()
    y = norm(x)
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, norm(x.float()).bfloat16())


def test_gradient_has_no_component_along_the_input():
    # y does not change with the scale of x, so x . dL/dx = 0 (eps aside)
    norm, x = _norm(16, 1e-12), normal(8, 16, seed=1).requires_grad_()
    (norm(x) * normal(8, 16, seed=2)).sum().backward()
    assert x.grad.abs().max() > 0.1
    assert (x.grad * x).sum(-1).abs().max() < 1e-5


def test_bytes_kept_for_the_backward():
    """Of 3 numbers: the input, the product and one root, in FP32: 3 + 3 + 1 numbers of 4 bytes."""
    assert norm_bytes(3) == 28
