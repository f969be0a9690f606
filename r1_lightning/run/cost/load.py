"""The size of an optimizer step, and what counts it for a kind of data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from r1_lightning.model.cost import MicroBatch


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


@dataclass(frozen=True)
class Wave:
    """The rows that are sampled at a time: `rows` completions of `prompts` prompts, of at most these lengths.

    `drawn` are all that are drawn, wave after wave, if they are more.
    """

    rows: int
    prompts: int
    prompt_tokens: int
    new_tokens: int
    drawn: int = 0

    @property
    def length(self) -> int:
        return self.prompt_tokens + self.new_tokens


class CountedData(Protocol):
    """Counts the steps of a data module. `prompts` are those of the first step that samples; empty if nothing is sampled."""

    @property
    def prompts(self) -> Sequence[Sequence[int]]: ...

    @property
    def assumption(self) -> str:
        """What was assumed because the data are not here; empty if they are."""

    def load(self, new_tokens: float | None) -> StepLoad:
        """Return the load of a step whose completions have `new_tokens` each (None: the length limit)."""

    def micro_batch(self, mtp_depth: int) -> MicroBatch:
        """Return the largest micro-batch of a run."""

    def wave(self) -> Wave | None:
        """Return what is sampled at a time; None if nothing is."""
