"""The operator for compiled graphs is `grouped_mm`: product, gradients, and what torch asks of an operator."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from r1_lightning.model.grouped_product import grouped_product, grouped_weight_gradient
from tests.model.tiny import normal

ENDS = torch.tensor([3, 3, 7, 8], dtype=torch.int32)  # the second expert has no row


def given() -> tuple[Tensor, Tensor]:
    return normal(8, 12, seed=1).requires_grad_(), normal(4, 12, 20, seed=2).requires_grad_()


def test_product_and_gradients_are_those_of_a_loop() -> None:
    x, weight = given()
    starts = [0, *ENDS.tolist()[:-1]]
    loop = torch.cat(
        [x[start:end] @ weight[e] for e, (start, end) in enumerate(zip(starts, ENDS.tolist(), strict=True))]
    )
    torch.testing.assert_close(grouped_product(x, weight, ENDS), loop, atol=1e-5, rtol=0)
    wanted = torch.autograd.grad((loop * normal(8, 20, seed=3)).sum(), [x, weight])
    found = torch.autograd.grad((grouped_product(x, weight, ENDS) * normal(8, 20, seed=3)).sum(), [x, weight])
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    assert found[1][1].abs().max() == 0


def test_it_is_grouped_mm_to_the_bit() -> None:
    x, weight = (tensor.detach() for tensor in given())
    assert torch.equal(grouped_product(x, weight, ENDS), F.grouped_mm(x, weight, offs=ENDS))


def test_torch_finds_no_fault_in_the_operators() -> None:
    """Schema, fake shapes, autograd and tracing, by torch's own check."""
    x, weight = given()
    checks = torch.library.opcheck(grouped_product, (x, weight, ENDS))
    checks |= torch.library.opcheck(grouped_weight_gradient, (x.detach(), normal(8, 20, seed=3), ENDS))
    assert checks and set(checks.values()) == {"SUCCESS"}
