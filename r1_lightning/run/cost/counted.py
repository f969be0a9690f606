"""What an optimizer step computes on each kind of data that is counted: a table by the class of the data module.

Nobody has counted the others; a dry run refuses them. A data module that derives from one of these is counted as that is. To count
another kind, write a class that fits `CountedData`, and its line in `COUNTED` (and in `probe.PROBES`, to have it timed as well).
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
    """What an optimizer step computes: tokens trained on, those of them with a loss, and what is sampled for it.

    A trained token looks at `context` tokens on average. `prompts` may be a fraction: a rollout serves several steps.
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
    """A data module whose steps are counted. `prompts` are those of the first rollout; none where nothing is sampled."""

    @property
    def prompts(self) -> Sequence[Sequence[int]]: ...

    def load(self, new_tokens: float | None) -> StepLoad:
        """The load of a step whose completions have `new_tokens` each; None: as many as they may ever have."""

    def micro_batch(self, mtp_depth: int) -> MicroBatch:
        """The largest micro-batch of a run."""


class PackedText:
    """Rows of text, all tokens of which are trained on."""

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
    """Groups of completions of the policy."""

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
        """As many rows as completions at their limit need, each behind the longest prompt."""
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
    """What counts the steps of a data module of this class, made from it; None where they are not counted."""
    return line_of(COUNTED, target)
