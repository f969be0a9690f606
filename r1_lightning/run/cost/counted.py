"""The size of an optimizer step for each kind of data that we can count, in a table by the class of the data module.

A dry run refuses all other kinds. A subclass of one of these data modules is counted like its base class. To count another kind,
write a class that fits `load.CountedData`, made from the data module and whether its rows are here, and its line in `COUNTED` (and
in `probe.PROBES`, to time it as well).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import mean
from typing import Any

from r1_lightning.data.chat_data import ChatDataModule
from r1_lightning.data.on_policy_data import OnPolicyDataModule
from r1_lightning.data.preference_data import (
    JudgedPreferenceDataModule,
    PreferenceDataModule,
    SampledPreferenceDataModule,
)
from r1_lightning.data.pretrain_data import PretrainDataModule
from r1_lightning.data.rollout_data import GroupedRolloutsDataModule
from r1_lightning.data.teacher_data import TeacherTracesDataModule
from r1_lightning.model.cost import MicroBatch
from r1_lightning.run.config.declarations import line_of
from r1_lightning.run.cost.counted_rows import Examples, Preferences, SampledPairs, StudentsText, TeachersText
from r1_lightning.run.cost.load import StepLoad, Wave


class PackedText:
    """Packed rows of text, with a loss on all tokens."""

    prompts: Sequence[Sequence[int]] = ()
    assumption = ""

    def __init__(self, data: PretrainDataModule, is_here: bool = True) -> None:
        self.data = data

    def load(self, new_tokens: float | None) -> StepLoad:
        tokens = self.data.rows_per_batch * self.data.row_tokens
        return StepLoad(tokens, tokens, self.data.row_tokens / 2)

    def micro_batch(self, mtp_depth: int) -> MicroBatch:
        rows, length = self.data.rows_per_batch, self.data.row_tokens
        return MicroBatch(rows, length, rows * length, mtp_depth)

    def wave(self) -> Wave | None:
        return None


class SampledGroups:
    """Groups of the policy's completions."""

    assumption = ""

    def __init__(self, data: GroupedRolloutsDataModule, is_here: bool = True) -> None:
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

    def wave(self) -> Wave | None:
        rollout = self.config
        drawn = rollout.prompts_per_rollout * rollout.group_size
        rows = min(rollout.max_rows, drawn)
        prompts = math.ceil(rows / rollout.group_size)
        return Wave(rows, prompts, max(map(len, self.prompts)), rollout.longest_completion, drawn)


COUNTED: dict[type, Any] = {
    PretrainDataModule: PackedText,
    GroupedRolloutsDataModule: SampledGroups,
    ChatDataModule: Examples,
    TeacherTracesDataModule: TeachersText,
    OnPolicyDataModule: StudentsText,
    PreferenceDataModule: Preferences,
    SampledPreferenceDataModule: SampledPairs,
    JudgedPreferenceDataModule: SampledPairs,
}


def counting_of(target: Any) -> Any:
    """Return the `CountedData` class for a data module of this class; None if its steps cannot be counted."""
    return line_of(COUNTED, target)
