"""Products of FP8 operands against NumPy from the definition of tiles, forward and both gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from r1_lightning.functional.fp8_products import (
    Recipe,
    grouped_linear,
    linear,
    one_by_one,
    one_by_one_by,
    places_of,
    rounded_experts,
)
from tests.functional.fp8_numpy import Array
from tests.functional.fp8_numpy import rounded as tiles
from tests.support.memory import saved_bytes

ROW, COLUMN, BLOCK = (1, 128), (128, 1), (128, 128)
RECIPES = [Recipe(p, b) for p in (True, False) for b in (True, False)]


def drawn(*shape: int, seed: int) -> Tensor:
    """Numbers of many sizes, row by row, so that a tile of the wrong shape gives another scale."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.exp2(torch.randint(-6, 7, (*shape[:-1], 1), generator=generator).float())
    return torch.randn(shape, generator=generator) * sizes


def three_products(x: Array, w: Array, dy: Array, recipe: Recipe) -> tuple[Array, Array, Array]:
    """y = x w, dx and dw for w of I x O: each operand through its own tiles, sums in double precision."""
    p = recipe.power_of_two

    def cut(matrix: Array, tile: tuple[int, int]) -> Array:
        return tiles(matrix, tile, p).astype(np.float64)

    weight, dy_rows = cut(w, BLOCK), cut(dy, BLOCK if recipe.gradient_blocks else ROW)
    return cut(x, ROW) @ weight, dy_rows @ weight.T, cut(x, COLUMN).T @ cut(dy, COLUMN)


def close(found: Tensor, wanted: Array) -> None:
    """Equal to within the rounding of FP32 sums: 2^-24 of the sum of magnitudes of some 100 products."""
    np.testing.assert_allclose(found.detach().numpy(), wanted, rtol=1e-5, atol=1e-6 * float(np.abs(wanted).max()))


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("shape", [(130, 200, 70), (3, 128, 129), (257, 7, 5)])
def test_the_three_products_of_a_linear_layer(shape: tuple[int, int, int], recipe: Recipe) -> None:
    rows, inputs, outputs = shape
    x, w, dy = (
        drawn(rows, inputs, seed=1).requires_grad_(),
        drawn(outputs, inputs, seed=2).requires_grad_(),
        drawn(rows, outputs, seed=3),
    )
    y = linear(x, w, recipe)
    y.backward(dy)
    wanted = three_products(x.detach().numpy(), w.detach().numpy().T, dy.numpy(), recipe)
    assert x.grad is not None and w.grad is not None
    for found, expected in zip((y, x.grad, w.grad.T), wanted, strict=True):
        close(found, expected)
    with torch.no_grad():
        assert torch.equal(linear(x, w, recipe), y)


COUNTS = [(3, 130, 0, 128), (0, 0, 5, 0), (1, 1, 1, 1), (257, 0, 0, 60)]


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("counts", COUNTS)
def test_the_three_products_of_experts_against_a_loop(counts: tuple[int, ...], recipe: Recipe) -> None:
    """Each expert's rows are a linear layer of their own: no tile holds rows of two."""
    rows, ends = sum(counts), torch.tensor(counts).cumsum(0).to(torch.int32)
    x, w, dy = (
        drawn(rows, 136, seed=1).requires_grad_(),
        drawn(4, 136, 140, seed=2).requires_grad_(),
        drawn(rows, 140, seed=3),
    )
    y = grouped_linear(x, w, ends, recipe)
    y.backward(dy)
    assert x.grad is not None and w.grad is not None
    begin = 0
    for expert, count in enumerate(counts):
        here = slice(begin, begin + count)
        begin += count
        if count == 0:
            assert (w.grad[expert] == 0).all()
            continue
        wanted = three_products(x[here].detach().numpy(), w[expert].detach().numpy(), dy[here].numpy(), recipe)
        for found, expected in zip((y[here], x.grad[here], w.grad[expert]), wanted, strict=True):
            close(found, expected)
    with torch.no_grad():
        assert torch.equal(grouped_linear(x, w, ends, recipe), y)


def test_one_expert_is_a_linear_layer() -> None:
    x, w = drawn(150, 136, seed=1), drawn(72, 136, seed=2)
    both = []
    for product in (
        lambda x, w: linear(x, w),
        lambda x, w: grouped_linear(x, w.T[None], torch.tensor([150], dtype=torch.int32)),
    ):
        x_, w_ = x.clone().requires_grad_(), w.clone().requires_grad_()
        y = product(x_, w_)
        (y * drawn(150, 72, seed=3)).sum().backward()
        assert x_.grad is not None and w_.grad is not None
        both.append((y.detach(), x_.grad, w_.grad))
    for found, wanted in zip(*both, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6 * float(wanted.abs().max()))


def test_rows_of_zeros_change_nothing() -> None:
    """Padding: an expert's last tile is filled up with zeros, which its products and gradients cannot tell from nothing.

    To rounding: some processors choose another kernel for 16 rows than for 5 (seen on an Intel with AMX).
    """
    x, w, dy = drawn(5, 128, seed=1), drawn(128, 128, seed=2), drawn(5, 128, seed=3)
    filled = [torch.cat([part, torch.zeros(11, 128)]) for part in (x, dy)]
    results = []
    for rows, gradient in ((x, dy), (filled[0], filled[1])):
        weight, rows = w.clone().requires_grad_(), rows.clone().requires_grad_()
        y = linear(rows, weight)
        y.backward(gradient)
        assert rows.grad is not None and weight.grad is not None
        results.append((y.detach(), rows.grad, weight.grad))
    (y, dx, dw), (long_y, long_dx, long_dw) = results
    for found, wanted in ((long_y[:5], y), (long_dx[:5], dx)):
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6 * float(wanted.abs().max()))
    assert (long_y[5:] == 0).all() and (long_dx[5:] == 0).all()
    torch.testing.assert_close(long_dw, dw, rtol=1e-6, atol=1e-6 * float(dw.abs().max()))


def test_the_places_of_rows_by_hand() -> None:
    """130 rows of expert 0 take two tiles of 128 places, expert 1 none, and the row of expert 2 begins a third tile."""
    places = places_of(torch.tensor([130, 130, 131], dtype=torch.int32), 131)
    assert places.n_places == 384 and places.ends_E.tolist() == [256, 256, 384]
    assert places.of_row.tolist() == [*range(130), 256]


def test_types() -> None:
    """BF16 in, BF16 out; the weight is cut from its FP32 numbers and its gradient is FP32."""
    x, w = drawn(9, 128, seed=1).bfloat16().requires_grad_(), drawn(16, 128, seed=2).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = linear(x, w)
    (y * y).sum().backward()
    assert x.grad is not None and w.grad is not None
    assert (y.dtype, x.grad.dtype, w.grad.dtype) == (torch.bfloat16, torch.bfloat16, torch.float32)
    wanted = three_products(x.detach().float().numpy(), w.detach().numpy().T, np.zeros((9, 16), np.float32), Recipe())
    assert torch.equal(y, torch.from_numpy(wanted[0]).bfloat16())


def test_experts_without_rows_one_by_one_in_bf16() -> None:
    """Weights stay FP32, also of the expert whose product has no rows."""
    x, w = drawn(5, 130, seed=1).bfloat16().requires_grad_(), drawn(3, 130, 6, seed=2).requires_grad_()
    y = one_by_one(x, w, torch.tensor([2, 2, 5], dtype=torch.int32))
    assert y.dtype == torch.bfloat16
    together = grouped_linear(x, w, torch.tensor([2, 2, 5], dtype=torch.int32))
    torch.testing.assert_close(y, together, rtol=0.0079, atol=0)  # one bit of BF16, 2^-7
    y.sum().backward()
    assert w.grad is not None and w.grad[1].eq(0).all() and w.grad[0].ne(0).any()
    cut = [Recipe().cut(matrix.T.contiguous(), BLOCK) for matrix in w.detach()]
    held = one_by_one_by(x.detach(), cut, torch.tensor([2, 2, 5], dtype=torch.int32))
    assert held.dtype == torch.bfloat16 and torch.equal(held, y)


def test_the_block_of_a_gradient_is_coarser() -> None:
    """Rows of sizes 2^-12 to 2^12: with one scale for all, numbers 2^17 below the largest become 0 (V3 appendix B.2)."""
    w, dy = drawn(128, 128, seed=2), drawn(128, 128, seed=3)
    dy = dy * dy.norm(dim=1, keepdim=True)
    exact, errors = dy @ w, []
    for blocks in (False, True):
        x = torch.zeros(128, 128, requires_grad=True)
        linear(x, w, Recipe(gradient_blocks=blocks)).backward(dy)
        assert x.grad is not None
        errors.append(((x.grad - exact).norm(dim=1) / exact.norm(dim=1)).max().item())
    assert errors[0] < 0.06 and errors[1] > 0.2


def test_the_blocks_of_two_experts_never_meet() -> None:
    """Expert 1 is 2^12 times as large; cut alone each gives the same numbers as cut together, also with 130 rows."""
    weight = drawn(2, 130, 140, seed=1) * torch.tensor([1.0, 4096.0])[:, None, None]
    together = rounded_experts(weight, Recipe())
    for expert in range(2):
        assert np.array_equal(together[expert].numpy(), tiles(weight[expert].numpy(), BLOCK))


def test_the_error_of_a_linear_layer() -> None:
    """Two operands of 2.6 % each: sqrt(2) * 2.6 % = 3.7 % of the product."""
    generator = torch.Generator().manual_seed(0)
    x, w = torch.randn(256, 512, generator=generator), torch.randn(256, 512, generator=generator)
    error = (linear(x, w) - x @ w.T).norm() / (x @ w.T).norm()
    assert 0.036 < error < 0.039


@pytest.mark.parametrize("is_frozen", [False, True])
def test_what_is_kept_for_the_backward(is_frozen: bool) -> None:
    """x in bytes, and a scale for each channel of each tile of 128 rows: 256 x 64 + 2 x 64 x 4. A frozen weight needs nothing."""
    x, w = drawn(256, 64, seed=1).requires_grad_(), drawn(32, 64, seed=2).requires_grad_(not is_frozen)
    kept = saved_bytes(lambda: linear(x, w), before=[x, w])
    assert kept == (0 if is_frozen else 256 * 64 + 2 * 64 * 4)
