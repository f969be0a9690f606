"""SwiGLU: down(silu(gate(x)) * up(x))."""

from __future__ import annotations

import pytest
import torch

from r1_lightning.model.feed_forward import FeedForward, swiglu
from r1_lightning.model.precision import PlainPrecision
from tests.model.tiny import normal, randomise, twins


def test_swiglu_literal_numbers():
    # gate 1, 0; up 2, 5: silu(1) = 1 / (1 + e^-1) = 0.7310586; times 2 = 1.4621172; silu(0) * 5 = 0
    assert swiglu(torch.tensor([1.0, 0.0, 2.0, 5.0])).tolist() == pytest.approx([1.4621172, 0.0], abs=1e-6)


def test_against_huggingface():
    model, twin = twins()
    x = normal(3, 5, model.config.d_model)
    y = model.blocks[0].feed_forward(x)
    assert y.std() > 0.1
    torch.testing.assert_close(y, twin.model.layers[0].mlp(x), atol=1e-5, rtol=0)


def test_each_token_alone():
    layer = FeedForward(32, 24, PlainPrecision())
    randomise(layer, seed=1)
    x = normal(4, 6, 32)
    torch.testing.assert_close(layer(x)[2, 3], layer(x[2, 3]), atol=1e-5, rtol=0)


def test_gradient_against_finite_differences():
    layer = FeedForward(8, 6, PlainPrecision())
    randomise(layer, seed=1)
    layer.double()
    assert torch.autograd.gradcheck(layer, (normal(3, 8, dtype=torch.float64).requires_grad_(),))
