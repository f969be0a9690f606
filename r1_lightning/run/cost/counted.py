"""The size of an optimizer step for each kind of data that we can count, in a table by the class of the data module.

A dry run refuses all other kinds. A subclass of one of these data modules is counted like its base class. To count another kind,
write a class that fits `CountedData`, and its line in `COUNTED` (and in `probe.PROBES`, to time it as well).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any, Protocol

from r1_lightning.data.pretrain_data import PretrainDataModule
from r1_lightning.data.rollout_data import GroupedRolloutsDataModule
from r1_lightning.model.cost import MicroBatch
from r1_lightning.run.config.declarations import line_of


@dataclass(frozen=True)
class StepLoad:
    """Size of an optimizer step: trained tokens, those of them with a loss, and the sampling for it.

    A trained token attends to `context` tokens on average. `prompts` may be a fraction, because a rollout serves several steps.
    """

    tokens: float
    targets: float
    context: float
    prompts: float = 0.0
    group_size: int = 1
    prompt_tokens: float = 0.0
    new_tokens: float = 0.0

    @property
    def sampled_tokens(self) -> float:
        return self.prompts * self.group_size * self.new_tokens


class CountedData(Protocol):
    """Counts the steps of a data module. `prompts` are those of the first rollout; empty if nothing is sampled."""

    @property
    def prompts(self) -> Sequence[Sequence[int]]: ...

    def load(self, new_tokens: float | None) -> StepLoad:
        """Return the load of a step whose completions have `new_tokens` each (None: the length limit)."""

    def micro_batch(self, mtp_depth: int) -> MicroBatch:
        """Return the largest micro-batch of a run."""


class PackedText:
    """Packed rows of text, with a loss on all tokens."""

    prompts: Sequence[Sequence[int]] = ()

    def __init__(self, data: PretrainDataModule) -> None:
        self.data = data

    def load(self, new_tokens: float | None) -> StepLoad:
        tokens = self.data.rows_per_batch * self.data.row_tokens
        return StepLoad(tokens, tokens, self.data.row_tokens / 2)

    def micro_batch(self, mtp_depth: int) -> MicroBatch:
        rows, length = self.data.rows_per_batch, self.data.row_tokens
        return MicroBatch(rows, length, rows * length, mtp_depth)


class SampledGroups:
    """Groups of the policy's completions."""

    def __init__(self, data: GroupedRolloutsDataModule) -> None:
        maker = data.dataset.maker
        self.config, self.prompts = maker.config, maker.prompts(data.dataset.problems(0))

    def load(self, new_tokens: float | None) -> StepLoad:
        rollout = self.config
        new = rollout.longest_completion if new_tokens is None else new_tokens
        prompt, steps = mean(map(len, self.prompts)), rollout.minibatches_per_rollout
        sequences = rollout.prompts_per_rollout * rollout.group_size / steps
        prompts = rollout.prompts_per_rollout * rollout.dynamic_sampling_attempts / steps
        length = prompt + new
        return StepLoad(sequences * length, sequences * new, length / 2, prompts, rollout.group_size, prompt, new)

    def micro_batch(self, mtp_depth: int) -> MicroBatch:
        """Return the micro-batch of completions at the length limit, each after the longest prompt."""
        rollout = self.config
        new, length = rollout.longest_completion, rollout.row_tokens
        sequences = rollout.prompts_per_rollout * rollout.group_size // rollout.minibatches_per_rollout
        longest = max(map(len, self.prompts)) + new
        per_row = length // longest
        length = per_row * longest  # the rest is cut off
        rows = math.ceil(math.ceil(sequences / per_row) / rollout.micro_batches)
        return MicroBatch(rows, length, min(rows * per_row, sequences) * new, mtp_depth)


COUNTED: dict[type, Any] = {PretrainDataModule: PackedText, GroupedRolloutsDataModule: SampledGroups}


def counting_of(target: Any) -> Any:
    """Return the `CountedData` class for a data module of this class; None if its steps cannot be counted."""
    return line_of(COUNTED, target)
