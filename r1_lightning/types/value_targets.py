"""What PPO keeps of a rollout beside advantages, for the value model to learn from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Self

from torch import Tensor

from r1_lightning.types.movable import Movable


@dataclass(frozen=True)
class ValueTargets(Movable):
    """Numbers of each completion token: R x T in a rollout of R rows, B x T in packed rows; 0 outside of completions.

    `old_values` are the values, before any step of this rollout, of the states before the tokens; `returns` what they should have
    been. `ref_logprobs` (nats), which the same pass computes, are those of the reference; None if there is no KL.
    """

    old_values: Tensor
    returns: Tensor
    ref_logprobs: Tensor | None = None

    def map(self, change: Callable[[Tensor], Tensor]) -> Self:
        """Return the fields that are there, each changed in the same way."""
        named = {item.name: getattr(self, item.name) for item in fields(self)}
        return replace(self, **{name: change(tensor) for name, tensor in named.items() if tensor is not None})
