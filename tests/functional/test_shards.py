"""Rows divided over processes: who holds which, and gathering them again; plain tensors pass through."""

from __future__ import annotations

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

from r1_lightning.functional.shards import fill, is_sharded, keep_rows, local, own_rows, whole
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
