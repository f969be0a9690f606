"""Values of tensors that move between devices as one, as Lightning moves every batch."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Self

import torch
from torch import Tensor


class Movable:
    """Mixin for frozen dataclasses of tensors and of such dataclasses: `.to(device)`, which Lightning calls on every batch."""

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        moved = {}
        for item in fields(self):  # type: ignore[arg-type]
            value = getattr(self, item.name)
            if isinstance(value, (Tensor, Movable)):
                moved[item.name] = value.to(device, non_blocking=non_blocking)
        return replace(self, **moved)  # type: ignore[type-var]
