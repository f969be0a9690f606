"""The clock of a pipeline: by hand, and against a clock that ticks and knows neighbours alone."""

from __future__ import annotations

import pytest

from r1_lightning.functional.pipeline import Chunk, ChunkTimes, Order, simulate
from r1_lightning.functional.pipeline_schedules import SCHEDULES
from r1_lightning.types.errors import InvalidInput

UNIFORM = ChunkTimes(1.0, 2.0, 1.0, 3.0)  # F = I = W = 1


def ticking(order: Order, times: ChunkTimes) -> list[list[int]]:
    """When each slot begins, by a clock: at every tick each free rank takes its next slot if what it waits for has ended."""
    ranks = len(order)
    begun: list[list[int]] = [[] for _ in order]
    free = [0] * ranks
    ended: dict[tuple[str, bool, int, int], int] = {}  # kind, direction, micro-batch, rank -> tick
    for tick in range(1_000):
        for rank, slots in enumerate(order):
            while len(begun[rank]) < len(slots) and free[rank] <= tick:
                slot = slots[len(begun[rank])]
                if not all(is_ready(chunk, rank, ranks, ended, tick) for chunk in slot):
                    break
                begun[rank].append(tick)
                free[rank] = tick + int(times.of("".join(chunk.kind for chunk in slot)))
                for chunk in slot:
                    ended[chunk.kind.replace("I", "B"), chunk.is_reverse, chunk.batch, rank] = free[rank]
    return begun


def is_ready(chunk: Chunk, rank: int, ranks: int, ended: dict[tuple[str, bool, int, int], int], tick: int) -> bool:
    """Written by direction and neighbour, not by stage."""
    way = -1 if chunk.is_reverse else 1
    first, last = (ranks - 1, 0) if chunk.is_reverse else (0, ranks - 1)
    never = tick + 1
    if chunk.kind == "F":
        return rank == first or ended.get(("F", chunk.is_reverse, chunk.batch, rank - way), never) <= tick
    if chunk.kind == "W":
        return ended.get(("B", chunk.is_reverse, chunk.batch, rank), never) <= tick
    own = ended.get(("F", chunk.is_reverse, chunk.batch, rank), never) <= tick
    return own and (rank == last or ended.get(("B", chunk.is_reverse, chunk.batch, rank + way), never) <= tick)


@pytest.mark.parametrize("name", list(SCHEDULES))
@pytest.mark.parametrize("times", [UNIFORM, ChunkTimes(2.0, 5.0, 2.0, 6.0), ChunkTimes(3.0, 4.0, 1.0, 5.0)], ids=str)
def test_the_earliest_times_are_those_of_a_clock(name: str, times: ChunkTimes):
    order = SCHEDULES[name].order(4, 10)
    timeline = simulate(order, times)
    assert [[timed.start for timed in row] for row in timeline.ranks] == ticking(order, times)


def test_an_order_that_waits_for_ever_is_refused():
    order = [[(Chunk("B", 0),), (Chunk("F", 0),)], [(Chunk("F", 0),), (Chunk("B", 0),)]]
    with pytest.raises(InvalidInput, match="rank 0 waits for ever"):
        simulate(order, UNIFORM)


@pytest.mark.parametrize(
    "times",
    [
        (0.0, 2.0, 1.0, 3.0),
        (1.0, 2.0, 3.0, 3.0),
        (1.0, 2.0, -1.0, 3.0),
        (1.0, 2.0, 1.0, 0.0),
        (float("nan"), 2.0, 1.0, 3.0),
        (1.0, float("inf"), 1.0, 3.0),
    ],
)
def test_times_are_checked(times: tuple[float, ...]):
    with pytest.raises(InvalidInput, match="is not allowed"):
        ChunkTimes(*times)


def test_1f1b_with_two_ranks_by_hand():
    """F = 1, B = 2. Rank 1: F0 1-2, B0 2-4, F1 4-5, B1 5-7; rank 0: F0 0-1, F1 1-2, B0 4-6, B1 7-9. Of 9, 6 are work: bubble 3."""
    timeline = SCHEDULES["1f1b"].run(2, 2, UNIFORM)
    spans = [[(timed.start, timed.end) for timed in row] for row in timeline.ranks]
    assert spans == [[(0, 1), (1, 2), (4, 6), (7, 9)], [(1, 2), (2, 4), (4, 5), (5, 7)]]
    assert (timeline.end, timeline.bubble, timeline.idle(1)) == (9, 3, 3)
    assert [timeline.activations(rank) for rank in (0, 1)] == [2, 1]
