"""Muon (Jordan 2024; Moonlight, arXiv:2502.16982) for the hidden matrices, AdamW for everything else, as one optimizer.

DeepSeek-V3 was trained with AdamW. The miniature trains for minutes, not months, and learns its arithmetic from far fewer tokens
with Muon (docs/log.md), so its pre-training uses Muon; `optim=adamw` is the paper's choice. torch's own Muon takes matrices
only; ours also orthogonalises each of the experts' stacked matrices (E x in x out).

    M <- mu M + (1 - mu) G;   W <- W - lr (0.2 sqrt(max(m, n)) orthogonalised((1 - mu) G + mu M) + weight_decay W)

The factor gives updates the same root mean square as AdamW's (Moonlight, eq 4). AdamW trains embeddings, heads (also a reward
model's score head), routers, convolutions and norms, whatever names a model family gives them (`model.roles`).

A matrix whose rows are divided over processes is orthogonalised as a whole: every process gathers the updates of one stack,
orthogonalises them and keeps its own rows. So all processes do the same products (they are a few percent of a step's), and momentum
stays divided.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from r1_lightning.functional.orthogonal import orthogonalised
from r1_lightning.functional.shards import keep_rows, local, whole
from r1_lightning.model.roles import unmapped
from r1_lightning.stages.base import AdamWConfig
from r1_lightning.types.errors import require, require_number

MATCH_ADAMW_RMS = 0.2  # Moonlight section 2.2: AdamW's updates have a root mean square of 0.2 to 0.4


# Elements per stack, 16 MB in FP32. Small matrices are multiplied in one batch (threads synchronise a quarter as often); large
# ones would gain nothing and be copied.
STACK_ELEMENTS = 2**22


def stacks(parameters: Iterable[Tensor]) -> list[list[Tensor]]:
    """Group parameters by shape, type and device into stacks of at most `STACK_ELEMENTS` elements, at least one parameter each."""
    alike: dict[object, list[list[Tensor]]] = {}
    for parameter in parameters:
        lists = alike.setdefault((parameter.shape, parameter.dtype, parameter.device), [[]])
        if (len(lists[-1]) + 1) * parameter.numel() > STACK_ELEMENTS and lists[-1]:
            lists.append([])
        lists[-1].append(parameter)
    return [stack for lists in alike.values() for stack in lists]


class Muon(torch.optim.Optimizer):
    """Muon for parameter groups with `matrix=True`, AdamW for the others, with one state_dict and one schedule."""

    def __init__(self, groups: list[dict[str, Any]], momentum: float, betas: tuple[float, float]) -> None:
        super().__init__(groups, {"momentum": momentum, "betas": betas, "matrix": False, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if group["matrix"]:
                for stack in stacks(parameters):
                    self._matrix_step(stack, group)
            elif parameters:
                self._adamw_step(parameters, group)
        return loss

    def _matrix_step(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        """Update matrices of one shape, orthogonalised as one stack: a few batched products in place of many small ones."""
        updates = [self._look_ahead(parameter, group["momentum"]) for parameter in parameters]
        scale = MATCH_ADAMW_RMS * max(parameters[0].shape[-2:]) ** 0.5
        for parameter, update in zip(parameters, orthogonalised(torch.stack(updates)), strict=True):
            own = keep_rows(update, parameter)
            local(parameter).mul_(1 - group["lr"] * group["weight_decay"]).add_(own, alpha=-group["lr"] * scale)

    def _look_ahead(self, parameter: Tensor, momentum: float) -> Tensor:
        """Move the momentum of `parameter` by its gradient; returns Nesterov's look ahead, all rows of it."""
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        gradient, mean = parameter.grad, state["momentum"]
        assert gradient is not None
        local(mean).lerp_(local(gradient), 1 - momentum)
        return whole(gradient.lerp(mean, momentum))

    def _adamw_step(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["step"] = torch.zeros(())
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        states = [self.state[parameter] for parameter in parameters]
        beta1, beta2 = group["betas"]
        adamw(
            [local(parameter) for parameter in parameters],
            [local(parameter.grad) for parameter in parameters if parameter.grad is not None],
            [local(state["exp_avg"]) for state in states],
            [local(state["exp_avg_sq"]) for state in states],
            [],
            [state["step"] for state in states],
            fused=True,
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=1e-8,
            maximize=False,
        )


@dataclass(frozen=True)
class MuonConfig(AdamWConfig):
    """`matrix_lr` and `momentum` apply to hidden matrices, `lr` and the betas (AdamW's) to all other parameters."""

    matrix_lr: float = 0.01
    momentum: float = 0.95

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number("optim.matrix_lr", self.matrix_lr, 0.0, open_minimum=True)
        require_number("optim.momentum", self.momentum, 0.0, 1.0)
        require(self.momentum < 1, "optim.momentum", self.momentum, "it must be below 1")

    def build(self, module: nn.Module) -> Muon:
        """An optimizer over the parameters of `module` that train."""
        return Muon(self.muon_groups(module), self.momentum, (self.beta1, self.beta2))

    def muon_groups(self, module: nn.Module) -> list[dict[str, Any]]:
        """The parameters of `module` that train: hidden matrices, other ones, and vectors."""
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        left_alone = unmapped(module)
        hidden = [p for p in trained if p.dim() > 1 and id(p) not in left_alone]
        other = [p for p in trained if p.dim() > 1 and id(p) in left_alone]
        vectors = [p for p in trained if p.dim() <= 1]
        groups = [
            {"params": hidden, "lr": self.matrix_lr, "weight_decay": self.weight_decay, "matrix": True},
            {"params": other, "lr": self.lr, "weight_decay": self.weight_decay},
            {"params": vectors, "lr": self.lr},
        ]
        return [group for group in groups if group["params"]]


def state_bytes(optimizer: torch.optim.Optimizer, idle: Collection[Tensor] = ()) -> int:
    """Bytes of the moments once each parameter has had a gradient: one moment for a matrix of Muon, two (AdamW) for all others.

    `idle` parameters never get a gradient. Step counters, one number per parameter tensor, are not counted.
    """
    skipped = {id(parameter) for parameter in idle}
    return sum(
        (1 if group.get("matrix") else 2)
        * parameter.numel()
        * getattr(optimizer, "moment_itemsize", parameter.element_size())
        for group in optimizer.param_groups
        for parameter in group["params"]
        if id(parameter) not in skipped
    )
