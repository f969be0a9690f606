"""The processes of a run: who computes which share, and what all of them add up, collect and agree on.

Several processes compute the same run as one. Each holds the whole state (weights, rollout in use, cursor) and computes a
share of the work; shares are put together so that every process goes on with the very numbers that one process would have. So
the number of processes decides nothing but the time, and may change when a run resumes.

`ONE` is a run of a single process: its sums and collections return what they are given, and torch.distributed is not touched.
`ProcessGroup` is a rank of an initialised torch.distributed group. Parts are given one of the two when they are made, so nothing
else asks how many processes there are, and the mathematics has no branch for it.

Every method but `share` is a collective call: all processes must make the same calls in the same order, also one whose share is
empty; else all of them wait until the group's time limit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """A run of one process; the base class of `ProcessGroup`. `rank` counts from 0, `count` is the number of processes."""

    rank: int = 0
    count: int = 1

    @property
    def is_main(self) -> bool:
        """True in the one process that writes files and prints."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """Return this process's items: a piece without gaps, as long as the others' or one longer; empty if there are too few.

        The pieces of all processes in order of rank are `items`, so `gather` restores the order. 7 items over 3 processes are
        pieces of 3, 2 and 2.
        """
        size, longer = divmod(len(items), self.count)
        start = self.rank * size + min(self.rank, longer)
        return items[start : start + size + (self.rank < longer)]

    def sum(self, values: Tensor) -> Tensor:
        """Return the elementwise sum over all processes, without gradients; shape and type are the same everywhere."""
        return values

    def collect(self, value: T) -> list[T]:
        """Return the values of all processes, in order of rank. They are pickled: for our own processes only."""
        return [value]

    def gather(self, items: Sequence[T]) -> list[T]:
        """Return the items of all processes, in order of rank: of shares, all items in their own order."""
        return list(chain.from_iterable(self.collect(list(items))))

    def from_main(self, make: Callable[[], T]) -> T:
        """Call `make` in the main process alone and return its value everywhere."""
        return make()

    def any(self, flag: bool) -> bool:
        """True everywhere if `flag` is True in at least one process."""
        return bool(self.sum(torch.tensor(int(flag))) > 0)

    def all(self, flag: bool) -> bool:
        """True everywhere if `flag` is True in every process."""
        return not self.any(not flag)

    def barrier(self) -> None:
        """Wait until every process has come here."""


ONE = Processes()


@dataclass(frozen=True)
class ProcessGroup(Processes):
    """A rank of a torch.distributed group (None: that of all processes); make it by `of_group`.

    The group must serve tensors of the CPU, as "gloo" does; on GPUs, initialise it with "cpu:gloo,cuda:nccl".
    """

    group: Any = None

    @classmethod
    def of_group(cls, group: Any = None) -> ProcessGroup:
        """Return this process's view of `group`. RuntimeError if torch.distributed is not initialised."""
        if not dist.is_initialized():
            raise RuntimeError("torch.distributed is not initialised: call init_process_group first")
        return cls(dist.get_rank(group), dist.get_world_size(group), group)

    def sum(self, values: Tensor) -> Tensor:
        total = values.detach().clone()
        dist.all_reduce(total, group=self.group)
        return total

    def collect(self, value: T) -> list[T]:
        found: list[Any] = [None] * self.count
        dist.all_gather_object(found, value, group=self.group)
        return found

    def from_main(self, make: Callable[[], T]) -> T:
        made: list[Any] = [make() if self.is_main else None]
        dist.broadcast_object_list(made, group_src=0, group=self.group)
        found: T = made[0]
        return found

    def barrier(self) -> None:
        self.any(False)  # on the CPU; dist.barrier would choose a device by itself


def processes_now() -> Processes:
    """Return the processes of this program: `ONE` unless a torch.distributed group is initialised. Call it once, at the start."""
    return ProcessGroup.of_group() if dist.is_available() and dist.is_initialized() else ONE
