"""A pipeline's clock: when each rank works on which micro-batch, and how long it stands idle.

A model is cut into PP stages of layers, one per rank, and a batch into micro-batches that pass through them. A *chunk* is the work
of one stage on one micro-batch: F forward, B backward, which can be split into I (gradients of the inputs, for which the stage
before waits) and W (gradients of the weights, for which nobody waits). A schedule is an order of chunks on each rank and nothing
else (`functional/pipeline_schedules.py`): `simulate` gives every chunk the earliest time at which its rank is free and what it
needs is there. The *bubble* is the time that a rank stands idle (DeepSeek-V3, arXiv:2412.19437, section 3.2.1). Sending takes no
time, and all stages and micro-batches take as long as each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from r1_lightning.types.errors import InvalidInput, require_number


@dataclass(frozen=True)
class ChunkTimes:
    """Durations in a unit of the reader's choice: F, a full B (I and W together), W, and F&B, a forward and a backward overlapped.

    Raises `InvalidInput` for a time that is not positive (W may be 0) and for W above B.
    """

    forward: float = 1.0
    backward: float = 2.0
    weights: float = 1.0
    overlapped: float = 3.0

    def __post_init__(self) -> None:
        require_number("forward", self.forward, 0.0, open_minimum=True)
        require_number("backward", self.backward, 0.0, open_minimum=True)
        require_number("weights", self.weights, 0.0, self.backward)
        require_number("overlapped", self.overlapped, 0.0, open_minimum=True)

    def of(self, kinds: str) -> float:
        """Return the duration of "F", "B", "I", "W", or of the pair "FB"."""
        inputs = self.backward - self.weights
        whole = {"F": self.forward, "B": self.backward, "I": inputs, "W": self.weights, "FB": self.overlapped}
        return whole[kinds]


class Chunk(NamedTuple):
    """Work of one rank on one micro-batch: `kind` is F, B, I or W; `is_reverse` for a micro-batch that enters at the last rank."""

    kind: str
    batch: int
    is_reverse: bool = False


Slot = tuple[Chunk, ...]  # what a rank does at one time: one chunk, or a forward and a backward that overlap
Order = Sequence[Sequence[Slot]]  # by rank


class Timed(NamedTuple):
    """A slot with the times at which it begins and ends."""

    slot: Slot
    start: float
    end: float


@dataclass(frozen=True)
class Timeline:
    """What each rank does when."""

    ranks: Sequence[Sequence[Timed]]

    @property
    def end(self) -> float:
        """When the last rank is done."""
        return max(timed[-1].end for timed in self.ranks)

    def idle(self, rank: int) -> float:
        """The bubble of a rank: the time until the last one is done, less its own work."""
        return self.end - sum(timed.end - timed.start for timed in self.ranks[rank])

    @property
    def bubble(self) -> float:
        """The largest bubble of a rank."""
        return max(self.idle(rank) for rank in range(len(self.ranks)))

    def activations(self, rank: int) -> int:
        """Most micro-batches whose activations a rank keeps at one time: from F to B or, where it is split, to W."""
        kept = most = 0
        for timed in self.ranks[rank]:
            kept += sum(chunk.kind == "F" for chunk in timed.slot)
            most = max(most, kept)
            kept -= sum(chunk.kind in "BW" for chunk in timed.slot)
        return most


def simulate(order: Order, times: ChunkTimes) -> Timeline:
    """Give every slot its earliest time. Raises `InvalidInput` if an order cannot be worked off (a chunk waits for a later one).

    F waits for F of the stage before; B and I for B or I of the stage after, at the last stage for their own F; W for its own I.
    """
    ranks = len(order)
    done: dict[tuple[str, int, bool, int], float] = {}  # ("F", "I" or "W", micro-batch, direction, stage) -> end
    timelines: list[list[Timed]] = [[] for _ in order]
    moved = True
    while moved:
        moved = False
        for rank, slots in enumerate(order):
            mine = timelines[rank]
            while len(mine) < len(slots):
                slot = slots[len(mine)]
                needs = [need for chunk in slot for need in _needs(chunk, rank, ranks)]
                if any(need not in done for need in needs):
                    break
                start = max([done[need] for need in needs] + [mine[-1].end if mine else 0.0])
                end = start + times.of("".join(chunk.kind for chunk in slot))
                mine.append(Timed(slot, start, end))
                done.update({key: end for chunk in slot for key in _makes(chunk, rank, ranks)})
                moved = True
    stuck = [rank for rank, slots in enumerate(order) if len(timelines[rank]) < len(slots)]
    if stuck:
        raise InvalidInput(
            f"order={order[stuck[0]][len(timelines[stuck[0]])]!r} is not allowed: rank {stuck[0]} waits for ever"
        )
    return Timeline(timelines)


def _stage(chunk: Chunk, rank: int, ranks: int) -> int:
    return ranks - 1 - rank if chunk.is_reverse else rank


def _needs(chunk: Chunk, rank: int, ranks: int) -> Iterator[tuple[str, int, bool, int]]:
    stage = _stage(chunk, rank, ranks)
    if chunk.kind == "F":
        if stage > 0:
            yield "F", chunk.batch, chunk.is_reverse, stage - 1
    elif chunk.kind == "W":
        yield "I", chunk.batch, chunk.is_reverse, stage
    else:
        yield "F", chunk.batch, chunk.is_reverse, stage
        if stage < ranks - 1:
            yield "I", chunk.batch, chunk.is_reverse, stage + 1


def _makes(chunk: Chunk, rank: int, ranks: int) -> Iterator[tuple[str, int, bool, int]]:
    for kind in "IW" if chunk.kind == "B" else chunk.kind:
        yield kind, chunk.batch, chunk.is_reverse, _stage(chunk, rank, ranks)
