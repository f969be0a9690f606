"""Tensors whose rows are divided over processes (DTensors, as `fully_shard` makes them of parameters), and how to treat them.

A sharded tensor of n rows over W processes gives each rank a piece of ceil(n / W) rows, the last ranks fewer or none: torch.chunk's
division. The same functions take plain tensors, which every process holds whole, so callers have no branch.

Of a view of a sharded tensor (half of its rows, one expert transposed) a process holds a `Window`: what to copy from the view's
values, and where to.

Only `whole` communicates: all ranks must call it, for the same tensors in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

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


class Window(NamedTuple):
    """What this process holds of a view: `held` says which elements of the view, whose whole shape is `shape`; `target` is their
    memory here, empty if there are none."""

    shape: tuple[int, ...]
    held: tuple[slice, ...]
    target: Tensor

    @classmethod
    def of(cls, view: Tensor) -> Window:
        """Return the window of a view that this process holds whole."""
        return cls(tuple(view.shape), tuple(slice(0, size) for size in view.shape), view)


def windows(tensor: Tensor, views_of: Callable[[Tensor], Sequence[Sequence[Tensor]]]) -> list[tuple[Window, ...]]:
    """Return the windows of the views that `views_of` makes of `tensor`, whole or sharded, in the same order.

    A view may select rows, reorder dimensions, or lie within one row.
    """
    if not is_sharded(tensor):
        return [tuple(map(Window.of, views)) for views in views_of(tensor)]
    frame = torch.empty(tensor.shape, device="meta")
    return [tuple(_window(view, tensor) for view in views) for views in views_of(frame)]


def _window(view: Tensor, of: Tensor) -> Window:
    """Return what is held here of `view`, one of a contiguous tensor like the sharded tensor `of`."""
    rows, own = own_rows(of), local(of)
    per_row = torch.Size(of.shape[1:]).numel()
    first = view.storage_offset() // per_row
    index, offset = [slice(0, size) for size in view.shape], view.storage_offset()
    along = [d for d in range(view.dim()) if view.shape[d] > 1 and view.stride(d) >= per_row]
    if along:  # the dimension that goes through the rows
        (dim,) = along
        low, high = (min(max(edge - first, 0), view.shape[dim]) for edge in (rows.start, rows.stop))
        index[dim], offset = slice(low, high), offset + low * per_row
        is_held = low < high
    else:  # within one row
        is_held = rows.start <= first < rows.stop
    if not is_held:
        return Window(tuple(view.shape), tuple(index), own[:0])
    sizes = [part.stop - part.start for part in index]
    place = own.storage_offset() + offset - rows.start * per_row
    return Window(tuple(view.shape), tuple(index), own.as_strided(sizes, view.stride(), place))
