"""Learning-rate schedules as factors of the peak rate, functions of the optimizer step alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

from r1_lightning.types.errors import require_int, require_number


@dataclass(frozen=True)
class WarmupCosine:
    """Linear warm-up over `warmup_steps`, then a cosine from 1 down to `final_factor` at `max_steps`.

    Called with a step 0 .. max_steps - 1, returns that step's factor. `final_factor=1` keeps the rate constant after the warm-up.
    """

    max_steps: int
    warmup_steps: int = 0
    final_factor: float = 1.0

    def __post_init__(self) -> None:
        require_int("schedule.max_steps", self.max_steps, 1)
        require_int("schedule.warmup_steps", self.warmup_steps, 0)
        require_number("schedule.final_factor", self.final_factor, 0.0, 1.0)

    def __call__(self, step: int) -> float:
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        progress = min((step - self.warmup_steps) / max(self.max_steps - self.warmup_steps, 1), 1.0)
        return self.final_factor + (1 - self.final_factor) * 0.5 * (1 + math.cos(math.pi * progress))
