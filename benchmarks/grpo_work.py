"""The work of the GRPO contests and the witness of it, for both sides (see `grpo_step.py`)."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from torch import Tensor, nn

from r1_lightning.types.errors import require
from r1_lightning.types.text import Completion, Problem, Verdict

if TYPE_CHECKING:  # the setting needs Hydra, which a machine with a GPU may lack
    from benchmarks.setting import Size

WORK = "GRPO step"
UNEVEN_SCALE = 0.33  # of the limit; rounding up and clamping leave the mean at about a third of it
WARM_UP_STEPS = 1
MEASURED_STEPS = 1
STEPS = WARM_UP_STEPS + MEASURED_STEPS


@dataclass(frozen=True)
class Work:
    """What both sides do: completion i of each rollout has `lengths[i]` tokens."""

    name: str
    lengths: tuple[int, ...]


def uneven_work(size: Size) -> Work:
    """Lengths as they come in practice: many short, few long, a third of the limit in the mean."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.empty(size.completions).exponential_(1.0, generator=generator) * size.new_tokens * UNEVEN_SCALE
    lengths = tuple(drawn.ceil().clamp(1, size.new_tokens).int().tolist())
    return Work(f"{WORK}, uneven lengths (mean {sum(lengths) / len(lengths):.1f})", lengths)


@dataclass
class Witness:
    """What happened during a measurement: when steps ended, how many completions were judged, how many had what length."""

    step_ends_s: list[float] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)

    def reward(self, text: str, n_tokens: int) -> float:
        """The rewarding rule of both sides: 1 for a text of an even number of characters, which half of them have."""
        self.lengths.append(n_tokens)
        return float(len(text) % 2 == 0)

    def step_ended(self) -> None:
        """Note that an optimizer step is over: on a GPU, once the work asked of it is done."""
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        self.step_ends_s.append(time.perf_counter())

    def seconds_per_step(self, work: Work) -> float:
        """Mean time from the end of the warm-up to the end of the last step, after checking that the work was done."""
        require(len(self.step_ends_s) == STEPS, "optimizer steps", len(self.step_ends_s), f"{STEPS} were asked for")
        wanted = list(work.lengths) * STEPS
        require(self.lengths == wanted, "judged completions", len(self.lengths), f"{len(wanted)} of the forced lengths")
        return (self.step_ends_s[-1] - self.step_ends_s[WARM_UP_STEPS - 1]) / MEASURED_STEPS


@dataclass
class WitnessedReward:
    """The rule as a reward function of ours."""

    witness: Witness
    name: str = "rule"

    def __call__(self, problem: Problem, completion: Completion) -> Verdict:
        return Verdict(self.witness.reward(completion.text, completion.n_tokens), "number of characters")


class LightningClock(L.Callback):
    """Tells the witness when an optimizer step of Lightning's Trainer is over; a step's parts are not steps."""

    def __init__(self, witness: Witness) -> None:
        self.witness = witness

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step > len(self.witness.step_ends_s):
            self.witness.step_ended()


def movement(model: nn.Module) -> Callable[[], bool]:
    """Call it after training: whether any weight differs from what it is now, wherever the model lies by then."""
    before: list[Tensor] = [parameter.detach().cpu().clone() for parameter in model.parameters()]

    def has_moved() -> bool:
        return any(not after.detach().cpu().equal(then) for after, then in zip(model.parameters(), before, strict=True))

    return has_moved


def check_moved(moved: bool) -> None:
    require(moved, "weights", "unchanged", "an optimizer step must move them")
