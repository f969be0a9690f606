"""The loader of all stages: it makes the batch of an optimizer step when that step asks for it.

It is a sized, map-style data set of steps, without workers or prefetching: otherwise Lightning would fetch one batch ahead, and
weights one step too old would sample a rollout. Its state is a cursor (and the data set's own state), saved in the Trainer's
checkpoint, so that a resumed run goes on with the very next batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol


class StepDataset(Protocol):
    """Batches by step number. `state_dict` holds the state that the step number alone cannot reproduce."""

    def __len__(self) -> int: ...

    def __getitem__(self, step: int) -> Any: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class FromSeed:
    """Base of a `StepDataset` whose batches are a function of seed and step number, so that it has no state."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""


class StepLoader:
    """Iterates over the remaining batches of a `StepDataset`; `len` counts all of its batches."""

    def __init__(self, dataset: StepDataset) -> None:
        self.dataset = dataset
        self.cursor = 0

    def __len__(self) -> int:
        return len(self.dataset)

    def __iter__(self) -> Iterator[Any]:
        while self.cursor < len(self.dataset):
            batch = self.dataset[self.cursor]
            self.cursor += 1
            yield batch

    def state_dict(self) -> dict[str, Any]:
        return {"cursor": self.cursor, "dataset": self.dataset.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.cursor = int(state["cursor"])
        self.dataset.load_state_dict(state["dataset"])
