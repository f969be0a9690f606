"""Rows divided over processes: who holds which, and gathering them again; plain tensors pass through."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

from r1_lightning.functional.shards import Window, fill, is_sharded, keep_rows, local, own_rows, whole, windows
from r1_lightning.types.processes import Processes
from tests.support.processes import in_processes


def test_a_plain_tensor_is_its_own_only_piece() -> None:
    tensor = torch.arange(6.0).view(3, 2)
    assert not is_sharded(tensor)
    assert local(tensor) is tensor and whole(tensor) is tensor and keep_rows(tensor, tensor) is tensor
    assert own_rows(tensor) == slice(0, 3)
    fill(tensor, torch.ones(3, 2))
    assert tensor.sum() == 6


def pieces(processes: Processes, rows: int) -> tuple[list[float], list[float], list[float]]:
    mesh = init_device_mesh("cpu", (processes.count,))
    values = torch.arange(float(rows))
    tensor = distribute_tensor(values, mesh, [Shard(0)])
    assert is_sharded(tensor) and torch.equal(whole(tensor), values)
    held = local(tensor).tolist()
    assert keep_rows(values, tensor).tolist() == held == values[own_rows(tensor)].tolist()
    fill(tensor, -values)
    with pytest.raises(ValueError, match="not divided by rows"):
        own_rows(distribute_tensor(values, mesh, [Replicate()]))
    return held, local(tensor).tolist(), whole(tensor).tolist()


@pytest.mark.slow
def test_pieces_are_those_of_torch_chunk() -> None:
    """4 rows over 3 processes: ceil(4 / 3) = 2 rows each, and none for the last."""
    first, second, third = in_processes(3, pieces, 4)
    assert (first[0], second[0], third[0]) == ([0, 1], [2, 3], [])
    assert (first[1], second[1], third[1]) == ([0, -1], [-2, -3], [])
    assert first[2] == second[2] == third[2] == [0, -1, -2, -3]


def test_a_plain_tensor_has_windows_on_all_of_its_views() -> None:
    tensor = torch.zeros(4, 2)
    ((upper,), (lower,)) = windows(tensor, lambda whole: [(half,) for half in whole.chunk(2)])
    assert upper.shape == (2, 2) and upper.held == (slice(0, 2), slice(0, 2))
    lower.target.fill_(1.0)
    assert tensor.sum(1).tolist() == [0, 0, 2, 2]


VIEWS = {
    "whole": lambda whole: [(whole,)],
    "halves": lambda whole: [(half,) for half in whole.chunk(2)],
    "swapped": lambda whole: [whole.chunk(2, dim=-1)[::-1]],
    "stacked": lambda whole: [(whole.transpose(1, 2),)],
    "each": lambda whole: [(half.T,) for row in whole for half in row.chunk(2, dim=1)],
}


def filled(processes: Processes, kind: str, shape: tuple[int, ...]) -> list[int]:
    """Fill each view from what another holds of it; returns how many elements each window has here."""
    values = torch.arange(1.0, 1 + torch.Size(shape).numel()).view(shape)
    mesh = init_device_mesh("cpu", (processes.count,))
    tensor = distribute_tensor(torch.zeros(shape), mesh, [Shard(0)])
    parts = [window for views in windows(tensor, VIEWS[kind]) for window in views]
    sources = [view for views in VIEWS[kind](values) for view in views]
    for window, source in zip(parts, sources, strict=True):
        assert isinstance(window, Window) and window.shape == tuple(source.shape)
        if window.target.numel():
            window.target.copy_(source[window.held])
    assert torch.equal(whole(tensor), values)
    return [window.target.numel() for window in parts]


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind, shape, held",
    [
        ("whole", (7,), [[3], [3], [1]]),
        ("whole", (2, 3), [[3], [3], [0]]),
        ("halves", (6, 2), [[4, 0], [2, 2], [0, 4]]),  # rows 0-1, 2-3, 4-5 of halves 0-2 and 3-5
        ("swapped", (4, 6), [[6, 6], [6, 6], [0, 0]]),
        ("stacked", (3, 2, 4), [[8], [8], [8]]),
        ("each", (2, 3, 4), [[6, 6, 0, 0], [0, 0, 6, 6], [0] * 4]),
    ],
)
def test_three_processes_fill_a_tensor_through_its_views(kind: str, shape: tuple[int, ...], held: list[Any]) -> None:
    assert in_processes(3, filled, kind, shape) == held
