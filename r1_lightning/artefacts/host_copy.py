"""Copies a training state in host memory, so that training can go on while a thread writes the copy to disk.

The buffers of a copy are those of the copy before it, wherever shapes and types are the same: new memory costs a page fault for
every 4 KiB. So the owner makes the next copy only when the last one is written. What stands on a GPU is copied to page-locked
("pinned") memory, which the GPU writes directly.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
PLAIN = (int, float, bool, str, bytes, type(None))  # values that nobody can change


class HostCopy:
    """Copies nested dictionaries, lists and tuples with everything in them; the next call writes over the last one's tensors."""

    def __init__(self) -> None:
        self.spare: dict[object, list[Tensor]] = defaultdict(list)  # buffers of the last copy, by form
        self.made: dict[object, Tensor] = {}  # the tensors of this copy, by the memory that they were copied from

    def __call__(self, value: T) -> T:
        """Return a copy of `value`, which shares nothing with it; tensors are on the CPU, and share memory where its own do."""
        self.spare = defaultdict(list)
        for buffer in self.made.values():
            self.spare[_form(buffer)].append(buffer)
        self.made = {}
        copied = self._copied(value)
        self.spare = defaultdict(list)
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            torch.cuda.synchronize()  # the copies from a GPU are only asked for, up to here
        return copied

    def _copied(self, value: Any) -> Any:
        if isinstance(value, PLAIN):
            return value
        if isinstance(value, Tensor):
            return self._tensor(value.detach())
        if isinstance(value, dict):
            copied = copy.copy(value)  # of its own type, with the version numbers that torch hangs on a state
            copied.update((key, self._copied(item)) for key, item in value.items())
            return copied
        if type(value) in (list, tuple):
            return type(value)(self._copied(item) for item in value)
        return copy.deepcopy(value)

    def _tensor(self, tensor: Tensor) -> Tensor:
        place = (tensor.device, tensor.data_ptr() or id(tensor), tensor.dtype, tensor.shape, tensor.stride())
        if place not in self.made:
            kept = self.spare[_form(tensor)]
            pinned = tensor.is_cuda
            buffer = kept.pop() if kept else torch.empty_like(tensor, device="cpu", pin_memory=pinned)
            self.made[place] = buffer.copy_(tensor, non_blocking=pinned)
        return self.made[place]


def _form(tensor: Tensor) -> object:
    return tensor.dtype, tensor.shape, tensor.stride(), tensor.is_cuda or tensor.is_pinned()
