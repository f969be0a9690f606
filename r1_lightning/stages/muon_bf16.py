"""Muon with its momentum, and the moments of its AdamW, kept in BF16 (as `stages/adamw_bf16.py` does for AdamW).

A hidden matrix then has 2 bytes of state per element in place of 4, any other parameter 4 in place of 8. The momentum is computed
in FP32 from its stored value, looked ahead from and orthogonalised, and only then rounded for the next step, up or down at random:

    M <- mu M + (1 - mu) G;   W <- W - lr (0.2 sqrt(max(m, n)) orthogonalised((1 - mu) G + mu M) + weight_decay W)

Orthogonalising takes every singular value to about 1, small ones too, and what is smaller than the rounding becomes noise of full
size. The published Muon lives with that: it rounds the look-ahead to BF16, to the nearest, and orthogonalises in BF16. Here the
gradient is exact, and only the past is rounded: an error below 1/128 of an element in a step, 0 in expectation, of which a share of
mu is left a step later; with mu = 0.95 the errors of all steps are 1 / sqrt(1 - mu^2) = 3.2 times that of one. With gradients
of the miniature's pre-training: the 25th update differs from FP32's by 2 to 8 percent, torch's own Muon by 1 to 5 (docs/log.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from r1_lightning.functional.shards import local, whole
from r1_lightning.stages.adamw_bf16 import MOMENTS, next_step, pieces, rounded_at_random, update
from r1_lightning.stages.muon import Muon, MuonConfig

MOMENTUM = "momentum"  # in the state of a hidden matrix


class BF16Muon(Muon):
    """`Muon` with BF16 momentum and moments; parameters are FP32 and contiguous."""

    moment_itemsize = 2

    def __init__(self, groups: list[dict[str, Any]], momentum: float, betas: tuple[float, float]) -> None:
        super().__init__(groups, momentum, betas)
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        self.numbers = {id(parameter): number for number, parameter in enumerate(parameters)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state. torch gives it the parameters' type first, which loses nothing; here it becomes BF16 again."""
        super().load_state_dict(state_dict)
        for state in self.state.values():
            for name in (MOMENTUM, *MOMENTS):
                if name in state:
                    state[name] = state[name].to(torch.bfloat16)

    def _look_ahead(self, parameter: Tensor, momentum: float) -> Tensor:
        state = self.state[parameter]
        step = next_step(parameter, state, (MOMENTUM,))
        gradient = parameter.grad
        assert gradient is not None
        mean = state[MOMENTUM].float().lerp_(gradient, 1 - momentum)
        stored, exact = (local(tensor).view(-1) for tensor in (state[MOMENTUM], mean))
        for own, (noise,) in pieces(parameter, step, self.numbers[id(parameter)], 1):
            stored[own] = rounded_at_random(exact[own], noise)
        return whole(gradient.lerp(mean, momentum))

    def _adamw_step(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        for parameter in parameters:
            update(parameter, self.state[parameter], group, self.numbers[id(parameter)])


@dataclass(frozen=True)
class BF16MuonConfig(MuonConfig):
    """`MuonConfig` with momentum and moments in BF16."""

    def build(self, module: nn.Module) -> BF16Muon:
        """An optimizer over the parameters of `module` that train."""
        return BF16Muon(self.muon_groups(module), self.momentum, (self.beta1, self.beta2))
