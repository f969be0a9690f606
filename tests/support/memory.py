"""Memory as tensors take it: what a forward saves for the backward, and the most that is alive at one time.

Both count whole storages once, however many tensors look at them; tensors that were there before are not counted.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from r1_lightning.functional.shards import local


def saved_bytes(forward: Callable[[], Any], before: Iterable[Tensor]) -> int:
    """Bytes that `forward` saves for a backward, the storages of `before` (the weights) left out."""
    known = {tensor.untyped_storage()._cdata for tensor in before}
    saved: dict[int, Any] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in known:
            saved[storage._cdata] = storage  # held, so that its address is not given to another
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = forward()
    del result
    return sum(storage.nbytes() for storage in saved.values())


class LiveTensors(TorchDispatchMode):
    """`peak` is the most bytes of storages made inside that were alive at one time; those of `before` are left out.

    Tensors on the meta device have no memory. Of one that is divided over processes this process's piece counts.
    """

    def __init__(self, before: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.known = {local(tensor).untyped_storage()._cdata for tensor in before}
        self.alive: dict[int, int] = {}
        self.now = self.peak = 0

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        result = function(*arguments, **(keywords or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and not tensor.is_meta:
                self._count(local(tensor).untyped_storage())
        self.peak = max(self.peak, self.now)
        return result

    def _count(self, storage: Any) -> None:
        place = storage._cdata
        if place not in self.alive and place not in self.known:
            self.alive[place] = storage.nbytes()
            self.now += self.alive[place]
            weakref.finalize(storage, self._drop, place)

    def _drop(self, place: int) -> None:
        self.now -= self.alive.pop(place)
