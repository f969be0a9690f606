"""Newton-Schulz: singular values near 1, directions kept, matrices of a stack apart, zero stays zero."""

from __future__ import annotations

import pytest
import torch

from r1_lightning.functional.orthogonal import orthogonalised


@pytest.mark.parametrize("shape", [(8, 8), (16, 6), (6, 16), (3, 12, 5)])
def test_singular_values_come_near_one(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalised(x))
    assert values.min() > 0.5 and values.max() < 1.3


def test_the_directions_are_those_of_the_matrix() -> None:
    """U^T y V of y = U f(S) V^T is diagonal: only the singular values have changed."""
    x = torch.randn(6, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    u, _, vh = torch.linalg.svd(x, full_matrices=False)
    inner = u.mT @ orthogonalised(x) @ vh.mT
    assert (inner - torch.diag(inner.diagonal())).abs().max() < 1e-9


def test_literal_numbers_of_a_diagonal() -> None:
    """diag(3, 4) / 5 = diag(0.6, 0.8); each entry runs s <- 3.4445 s - 4.7750 s^3 + 2.0315 s^5 five times."""
    expected = []
    for s in (0.6, 0.8):
        for _ in range(5):
            s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
        expected.append(s)
    result = orthogonalised(torch.diag(torch.tensor([3.0, 4.0], dtype=torch.float64)))
    assert torch.allclose(result, torch.diag(torch.tensor(expected, dtype=torch.float64)), atol=1e-5)


def test_a_stack_is_its_matrices_and_zero_stays_zero() -> None:
    x = torch.randn(4, 5, 7, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    assert torch.allclose(orthogonalised(x), torch.stack([orthogonalised(matrix) for matrix in x]), atol=1e-12)
    assert not orthogonalised(torch.zeros(2, 3, 3)).any()
