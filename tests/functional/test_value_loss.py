"""The value model's loss, by hand: without a clip half the squared error, with one the larger of two errors."""

from __future__ import annotations

import pytest
import torch

from r1_lightning.functional.value_loss import clipped_value_loss


def loss_and_gradient(value: float, old: float, due: float, clip_eps: float | None) -> tuple[float, float, float]:
    """Loss, its gradient and the share of clipped tokens, of one token."""
    values = torch.tensor([value], requires_grad=True)
    result = clipped_value_loss(values, torch.tensor([old]), torch.tensor([due]), 1, clip_eps)
    result.loss.backward()
    assert values.grad is not None
    assert float(result.metrics["value/loss"]) == float(result.loss.detach())
    return float(result.loss.detach()), float(values.grad), float(result.metrics["value/clip_fraction"])


@pytest.mark.parametrize(
    ("value", "due", "loss", "gradient", "clipped"),
    [
        (0.25, 1.0, 0.28125, -0.75, 0.0),  # inside of 0 +- 1/2: 1/2 (3/4)^2, and its slope
        (0.75, 1.0, 0.125, 0.0, 1.0),  # beyond, towards the return: 1/2 (1/2 - 1)^2, and it rests
        (-0.75, 1.0, 1.53125, -1.75, 0.0),  # beyond, away from it: 1/2 (7/4)^2, and it is pulled back
        (1.0, 1.0, 0.125, 0.0, 1.0),  # right, but too far for one rollout
    ],
)
def test_one_token_with_a_clip(value: float, due: float, loss: float, gradient: float, clipped: float) -> None:
    assert loss_and_gradient(value, 0.0, due, 0.5) == (loss, gradient, clipped)


def test_without_a_clip_it_is_half_the_squared_error() -> None:
    """1/2 (3 - 1)^2 = 2, slope 2."""
    assert loss_and_gradient(3.0, 0.0, 1.0, None) == (2.0, 2.0, 0.0)


def test_micro_batches_add_up_to_the_mean_over_all_tokens() -> None:
    values, old, due = torch.tensor([[1.0, 4.0, 2.0], [0.0, 3.0, 2.0], [2.0, 0.0, 2.0]])
    whole = clipped_value_loss(values, old, due, 3, 0.5)
    parts = [clipped_value_loss(values[part], old[part], due[part], 3, 0.5) for part in (slice(0, 1), slice(1, 3))]
    # clipped to 0.5: (1.5)^2 > 1; clipped to 3.5: 12.25 < 16; equal. 1/2 (2.25 + 16 + 0) / 3
    assert float(whole.loss) == pytest.approx(18.25 / 6) and float(
        whole.metrics["value/clip_fraction"]
    ) == pytest.approx(1 / 3)
    assert float(sum(part.loss for part in parts)) == pytest.approx(18.25 / 6)
    assert float(sum(part.metrics["value/clip_fraction"] for part in parts)) == pytest.approx(1 / 3)


def test_a_micro_batch_of_padding_costs_nothing() -> None:
    nothing = torch.zeros(0, requires_grad=True)
    result = clipped_value_loss(nothing, torch.zeros(0), torch.zeros(0), 0, 0.2)
    assert float(result.loss.detach()) == 0.0 and result.loss.requires_grad
