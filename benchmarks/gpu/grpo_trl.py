"""TRL's GRPO step beside ours: the benchmark's own other side (`benchmarks/grpo_trl.py`) with the weights and prompts of here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import SimpleNamespace
from typing import Any

import transformers

from benchmarks import grpo_trl
from benchmarks.gpu.grpo_size import SEED, GrpoSize, title
from benchmarks.pairs import Contest, Measurement, Result, compare
from benchmarks.setting import EXPERTS, World


@dataclass(frozen=True)
class SharedWorld(World):
    """The benchmark's world with the parts that our side already has, instead of ones composed by Hydra."""

    shared: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def config(self) -> Any:
        return SimpleNamespace(seed=SEED, stage=SimpleNamespace(objective=self.shared["objective"]))

    @cached_property
    def parts(self) -> Mapping[str, Any]:
        return self.shared


def beside_trl(
    size: GrpoSize,
    parts: Mapping[str, Any],
    ours: Measurement,
    observed: Callable[[Measurement], Measurement],
    device_type: str,
    say: Callable[[str], None],
) -> Result:
    """Alternating pairs with the best of TRL's batches and transformers' experts; `observed` wraps TRL's measurements."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    world = SharedWorld(size, "bf16", shared=parts)  # type: ignore[arg-type]
    theirs = {
        f"batch {batch}, experts={experts}": observed(
            grpo_trl.measurement(world, size.work, batch, experts, device_type)
        )
        for batch in size.trl_batches
        for experts in (EXPERTS[:1] if device_type == "cuda" else EXPERTS)  # a loop over experts is no match on a GPU
    }
    contest = Contest(title(size), "s/step", "TRL", {"defaults": ours}, theirs)
    return compare(contest, size.repeats, say)
