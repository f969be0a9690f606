"""Tensors whose rows are divided over processes (DTensors, as `fully_shard` makes them of parameters), and how to treat them.

A sharded tensor of n rows over W processes gives each rank a piece of ceil(n / W) rows, the last ranks fewer or none: torch.chunk's
division. The same functions take plain tensors, which every process holds whole, so callers have no branch.

Only `whole` communicates: all ranks must call it, for the same tensors in the same order.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor


def is_sharded(tensor: Tensor) -> bool:
    """True for a tensor of which each process holds a piece."""
    return isinstance(tensor, DTensor)


def local(tensor: Tensor) -> Tensor:
    """Return the piece that this process holds, sharing its memory; a plain tensor itself."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def whole(tensor: Tensor) -> Tensor:
    """Return all rows, gathered on every rank, without gradients; a plain tensor itself."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def own_rows(tensor: Tensor) -> slice:
    """Return which rows of the whole this process holds. ValueError unless the tensor is whole or divided by rows."""
    if not isinstance(tensor, DTensor):
        return slice(0, tensor.shape[0] if tensor.dim() else 1)
    mesh, placements = tensor.device_mesh, tensor.placements
    if mesh.ndim != 1 or not placements[0].is_shard(0):
        raise ValueError(f"a tensor placed as {placements} is not divided by rows over one group of processes")
    rows = tensor.shape[0]
    longest = -(-rows // mesh.size())
    start = min(mesh.get_local_rank() * longest, rows)
    return slice(start, min(start + longest, rows))


@torch.no_grad()
def fill(tensor: Tensor, values: Tensor) -> None:
    """Copy the whole tensor `values` into `tensor`; each rank copies its own rows."""
    if is_sharded(tensor):
        local(tensor).copy_(values[own_rows(tensor)])
    else:
        tensor.copy_(values)


@torch.no_grad()
def keep_rows(values: Tensor, like: Tensor) -> Tensor:
    """Return of the whole tensor `values` the rows that this process holds of `like`."""
    return values[own_rows(like)] if is_sharded(like) else values
