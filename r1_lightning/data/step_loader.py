"""The loader that keeps data and training in step: a batch is made for an optimizer step when that step asks for it.

A sized, map-style data set of steps, no workers and no prefetching: Lightning would otherwise fetch one batch ahead, and a
rollout would be sampled by weights one step too old. Its state is a cursor (and whatever the data set adds), saved inside
the Trainer's checkpoint, so that a resumed run goes on with the very next batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol


class StepDataset(Protocol):
    """Batches by step number. `state_dict` holds what cannot be made again from the step number alone."""

    def __len__(self) -> int: ...

    def __getitem__(self, step: int) -> Any: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class FromSeed:
    """Base of a `StepDataset` whose batches can be made again from seed and step number: there is nothing to store."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""


class StepLoader:
    """Iterates over the remaining batches of a `StepDataset`; `len` is the number of all of them."""

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
