"""Reads resume checkpoints: what is copied to where it will stay is mapped, so the host's memory never holds a second model.

Lightning's own reading has the whole file in memory until the last state is restored: weights and moments, on a GPU's host too.
Here the system maps the file, and a tensor's pages are read when it is copied into the model or onto the device; they belong to
the page cache, which gives them up as it likes. What stays on the host as it is (step counters, the rollout in flight, random
generators; on a CPU also the moments) is read, because a mapped tensor would keep the file's room on the disk after its removal.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from torch import Tensor
from torch.utils._pytree import tree_map

WEIGHTS, OPTIMIZERS = "state_dict", "optimizer_states"  # Lightning's keys


class MappedCheckpoints(TorchCheckpointIO):
    """Lightning's reading of checkpoints for a model on `device`; it never runs code of a file, whatever it is asked."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.copied = {WEIGHTS} if device.type == "cpu" else {WEIGHTS, OPTIMIZERS}

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Return the state at `path`, all of it on the CPU; whatever torch raises for a file that it cannot read."""
        state = torch.load(os.fspath(path), map_location="cpu", weights_only=True, mmap=True)
        return {key: tree_map(_numbers_read if key in self.copied else _read, value) for key, value in state.items()}


def _read(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def _numbers_read(value: Any) -> Any:
    """Step counters, which have no dimensions, stay on the host."""
    return _read(value) if isinstance(value, Tensor) and value.dim() == 0 else value
