"""AdamW with both moments kept in BF16 (V3 section 3.3.2), 4 bytes per parameter in place of 8; weights and gradients stay FP32.

The moments are computed in FP32 from their stored values, used, and rounded for the next step:

    m <- beta1 m + (1 - beta1) g;   v <- beta2 v + (1 - beta2) g^2;   w <- w - lr (m' / (sqrt(v') + eps) + weight_decay w)

with m' and v' after the correction of their bias. The report does not say how it rounds. To the nearest, a moment stands still as
soon as a step would change it by less than half of BF16's spacing, 1/512 of its size: with beta2 = 0.999 always. So we round
up or down at random, with probabilities that make the expected value exact (stochastic rounding; Gupta et al., arXiv:1502.02551).
The draws depend on step and parameter alone, so a resumed run draws the same. Where the rows of a parameter are divided over
processes, each draws for all of them and uses its own, so that any number of processes rounds alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from r1_lightning.functional.shards import local, own_rows
from r1_lightning.stages.base import AdamWConfig

EPS = 1e-8  # torch's
MOMENTS = ("exp_avg", "exp_avg_sq")
DROPPED_BITS = 16  # BF16 is the upper half of an FP32 number
MOST_PARAMETERS = 2**20  # parameters have numbers below this one, so that (step, parameter) is one number
PIECE = 2**22  # elements updated at a time: FP32 copies of the moments take 16 MB each, however large the parameter is


def drawn(count: int, device: torch.device, generator: torch.Generator) -> Tensor:
    """Draw `count` whole numbers below 2^16, the noise of `rounded_at_random`."""
    return torch.randint(2**DROPPED_BITS, (count,), dtype=torch.int32, device=device, generator=generator)


def rounded_at_random(x: Tensor, noise: Tensor) -> Tensor:
    """Round finite FP32 numbers to one of the two BF16 neighbours, up with a probability of the distance to the lower one."""
    bits = (x.view(torch.int32) + noise) & -(2**DROPPED_BITS)
    return bits.view(torch.float32).to(torch.bfloat16)


def seed_of(step: int, number: int) -> int:
    """Return the seed of a step's draws for parameter `number`: 63 bits, each of which depends on all bits of both.

    torch's CPU generator reads the lower 32 alone; without the mixing they would repeat every 4,096 steps. The mixing is that of
    SplitMix64 (Steele et al., "Fast splittable pseudorandom number generators", 2014).
    """
    z = ((step * MOST_PARAMETERS + number + 1) * 0x9E3779B97F4A7C15) % 2**64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % 2**64
    return (z ^ (z >> 31)) % 2**63


class BF16AdamW(torch.optim.Optimizer):
    """AdamW with decoupled weight decay and BF16 moments; parameters are FP32 and contiguous."""

    moment_itemsize = 2

    def __init__(self, groups: list[dict[str, Any]], lr: float, betas: tuple[float, float]) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        numbered = enumerate((group, parameter) for group in self.param_groups for parameter in group["params"])
        for number, (group, parameter) in numbered:
            if parameter.grad is not None:
                update(parameter, self.state[parameter], group, number)
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state. torch gives it the parameters' type first, which loses nothing; here the moments become BF16 again."""
        super().load_state_dict(state_dict)
        for state in self.state.values():
            for name in MOMENTS:
                state[name] = state[name].to(torch.bfloat16)


def update(parameter: Tensor, state: dict[str, Any], group: dict[str, Any], number: int) -> None:
    """Take a step with `parameter`, which has the `number` in its optimizer that its draws depend on; fills its `state`."""
    step = next_step(parameter, state, MOMENTS)
    local(parameter).mul_(1 - group["lr"] * group["weight_decay"])
    assert parameter.grad is not None
    tensors = [local(t).view(-1) for t in (parameter, parameter.grad, *(state[name] for name in MOMENTS))]
    for own, noises in pieces(parameter, step, number, len(MOMENTS)):
        _update_piece(tuple(tensor[own] for tensor in tensors), noises, group["lr"], group["betas"], step)


def next_step(parameter: Tensor, state: dict[str, Any], moments: Iterable[str]) -> int:
    """Count a step in `state`, which gets BF16 zeros for `moments` in the first; returns its number, from 1."""
    if not state:
        state["step"] = torch.zeros(())
        for name in moments:
            state[name] = torch.zeros_like(parameter, dtype=torch.bfloat16)
    state["step"] += 1
    return int(state["step"])


def pieces(parameter: Tensor, step: int, number: int, draws: int) -> Iterator[tuple[slice, list[Tensor]]]:
    """Yield slices of the elements that this process holds, at most `PIECE` at a time, and `draws` noises for each."""
    generator = torch.Generator(parameter.device).manual_seed(seed_of(step, number))
    rows = own_rows(parameter)
    width = parameter.numel() // max(parameter.shape[0], 1) if parameter.dim() else 1
    first, end = rows.start * width, rows.stop * width  # of the elements, those that this process holds
    for start in range(0, parameter.numel(), PIECE):
        stop = min(start + PIECE, parameter.numel())
        # Of all elements of the piece, in every process: the order of the draws must not depend on who holds what.
        noises = [drawn(stop - start, parameter.device, generator) for _ in range(draws)]
        low, high = max(start, first), min(stop, end)
        if low < high:
            yield slice(low - first, high - first), [noise[low - start : high - start] for noise in noises]


def _update_piece(
    piece: tuple[Tensor, ...], noises: list[Tensor], lr: float, betas: tuple[float, float], step: int
) -> None:
    """Take one step with a weight, its gradient and its two moments, all flat and of one length."""
    weight, gradient, mean, square = piece
    beta1, beta2 = betas
    m = mean.float().lerp_(gradient, 1 - beta1)
    v = square.float().mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    mean.copy_(rounded_at_random(m, noises[0]))
    square.copy_(rounded_at_random(v, noises[1]))
    size = v.sqrt_().div_((1 - beta2**step) ** 0.5).add_(EPS)
    weight.addcdiv_(m, size, value=-lr / (1 - beta1**step))


@dataclass(frozen=True)
class BF16AdamWConfig(AdamWConfig):
    """`AdamWConfig` with the moments in BF16."""

    def build(self, module: nn.Module) -> torch.optim.Optimizer:
        """An optimizer over the parameters of `module` that train."""
        return BF16AdamW(self.groups(module), self.lr, (self.beta1, self.beta2))
