"""Which recorded steps stand in a page of bounded size: the newest, the first, and then those between, by halves.

So the steps that are left out lie evenly among those that are there, however long the run was.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

Step = TypeVar("Step")
Part = TypeVar("Part")

SHARE = 0.5  # of the room, for one step at most
MOST_MISSES = 4  # steps that do not fit, one after the other, before no more are tried


def by_halves(steps: Sequence[Step]) -> list[Step]:
    """Return the steps in the order of their worth: the last, the first, the middle, the middles of both halves, and so on.

    >>> by_halves([0, 1, 2, 3, 4])
    [4, 0, 2, 1, 3]
    """
    if len(steps) < 2:
        return list(steps)
    order, gaps = [steps[-1], steps[0]], deque([(0, len(steps) - 1)])
    while gaps:
        low, high = gaps.popleft()
        middle = (low + high) // 2
        if middle > low:
            order.append(steps[middle])
            gaps += [(low, middle), (middle, high)]
    return order


def fitting(parts: Mapping[Step, Sequence[Part]], size: Callable[[Part], int], room: int) -> dict[Step, list[Part]]:
    """Return for each chosen step its first parts that fit: all of them, or as many as half of `room` holds.

    `parts` are in the order of time; `size` of a part is in the unit of `room`. The steps of the answer are in that order, too.
    """
    chosen: dict[Step, list[Part]] = {}
    left, misses = room, 0
    for step in by_halves(list(parts)):
        kept, used = [], 0
        for part in parts[step]:
            needed = size(part)
            if used + needed > min(left, SHARE * room):
                break
            kept.append(part)
            used += needed
        if kept and (len(kept) == len(parts[step]) or used + needed > SHARE * room):
            chosen[step], left, misses = kept, left - used, 0
        else:
            misses += 1
            if misses > MOST_MISSES:
                break
    return {step: chosen[step] for step in parts if step in chosen}
