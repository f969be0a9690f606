"""Pipeline schedules: 1F1B, ZB1P and DualPipe, with their row of Table 2 (DeepSeek-V3, arXiv:2412.19437, section 3.2.1).

1F1B      Narayanan et al. 2021 (arXiv:2104.04473): one forward, one backward, in turn.
ZB1P      Qi et al. 2023 (arXiv:2401.10241), ZB-H1: rank r puts the W of r micro-batches off to the end, where ranks stood idle.
DualPipe  feeds micro-batches from both ends, so that each rank holds two stages (r, and PP-1-r), and lets a forward and a backward
          overlap. The order is that of DeepSeek's published code (github.com/deepseek-ai/DualPipe, `dualpipe/dualpipe.py`).

Worked off by `functional/pipeline.py:simulate`, the bubble is that of the formula: of 1F1B always, of ZB1P where W is at most F and
I, of DualPipe where F = I, W is at most F, and F&B lies between the longer of F and B and their sum. Elsewhere the simulation is
what the order takes, and the formula an approximation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from r1_lightning.functional.pipeline import Chunk, ChunkTimes, Order, Slot, Timeline, simulate
from r1_lightning.types.errors import require, require_int


@dataclass(frozen=True)
class Schedule:
    """A schedule with its row of Table 2.

    `order(ranks, batches)` says what each rank does in which order, `bubble(ranks, times)` is the formula of the idle time, printed
    as `formula`, `activations(ranks)` the micro-batches kept by the fullest rank, `parameters` how many stages a rank holds.
    """

    name: str
    order: Callable[[int, int], Order]
    bubble: Callable[[int, ChunkTimes], float]
    activations: Callable[[int], int]
    parameters: int
    formula: str

    def check(self, ranks: int, batches: int) -> None:
        """Raise `InvalidInput` unless this schedule has an order for so many ranks and micro-batches."""
        require_int("ranks", ranks, 2)
        if self.parameters == 1:
            require_int("micro_batches", batches, ranks)
            return
        require(ranks % 2 == 0, "ranks", ranks, f"{self.name} needs an even number: it feeds from both ends")
        allowed = f"{self.name} needs an even number of at least {2 * ranks}, twice the ranks"
        require(batches % 2 == 0 and batches >= 2 * ranks, "micro_batches", batches, allowed)

    def run(self, ranks: int, batches: int, times: ChunkTimes) -> Timeline:
        """Return what each of `ranks` does when. Raises `InvalidInput` as `check` does."""
        self.check(ranks, batches)
        return simulate(self.order(ranks, batches), times)


def one_f_one_b(ranks: int, batches: int) -> Order:
    """Rank r reads PP-1-r micro-batches ahead, then takes one forward and one backward in turn."""
    return [_turns(ranks - 1 - rank, batches, lambda batch: [(Chunk("B", batch),)]) for rank in range(ranks)]


def zb1p(ranks: int, batches: int) -> Order:
    """As 1F1B, but rank r works on the weights of micro-batch j - r after the inputs of j, and on the last r at the end."""

    def backward(rank: int) -> Callable[[int], list[Slot]]:
        def chunks(batch: int) -> list[Slot]:
            put_off = [(Chunk("W", batch - rank),)] if batch >= rank else []
            return [(Chunk("I", batch),), *put_off]

        return chunks

    return [
        [
            *_turns(ranks - 1 - rank, batches, backward(rank)),
            *[(Chunk("W", batch),) for batch in range(batches - rank, batches)],
        ]
        for rank in range(ranks)
    ]


def _turns(ahead: int, batches: int, backward: Callable[[int], list[Slot]]) -> list[Slot]:
    slots: list[Slot] = [(Chunk("F", batch),) for batch in range(ahead)]
    for batch in range(batches):
        if batch + ahead < batches:
            slots.append((Chunk("F", batch + ahead),))
        slots += backward(batch)
    return slots


class _TwoWays:
    """The slots of one rank of DualPipe. Way 0 is that of micro-batches that enter at its own end of the pipeline."""

    def __init__(self, is_far: bool) -> None:
        self.is_far = is_far
        self.slots: list[Slot] = []
        self.next: dict[tuple[str, int], int] = {}
        self.put_off: list[Chunk] = []

    def chunk(self, kind: str, way: int) -> Chunk:
        batch = self.next.get((kind, way), 0)
        self.next[kind, way] = batch + 1
        return Chunk(kind, batch, bool(way) != self.is_far)

    def forward(self, way: int) -> None:
        self.slots.append((self.chunk("F", way),))

    def backward(self, way: int, is_split: bool = False) -> None:
        chunk = self.chunk("B", way)
        if is_split:
            self.put_off.append(chunk._replace(kind="W"))
        self.slots.append((chunk._replace(kind="I") if is_split else chunk,))

    def weights(self) -> None:
        self.slots.append((self.put_off.pop(0),))

    def both(self, way: int) -> None:
        """A forward of this way overlapped with a backward of the other."""
        self.slots.append((self.chunk("F", way), self.chunk("B", 1 - way)))


def dualpipe(ranks: int, batches: int) -> Order:
    """Eight phases per rank, by its distance from the nearer end: fill, swing in, the long middle, swing out, drain."""
    return [_dualpipe_rank(rank, ranks, batches) for rank in range(ranks)]


def _dualpipe_rank(rank: int, ranks: int, batches: int) -> list[Slot]:
    half, near = ranks // 2, min(rank, ranks - 1 - rank)
    inner = half - 1 - near  # ranks between this one and the middle
    mine = _TwoWays(is_far=rank >= half)
    for _ in range(2 * inner):
        mine.forward(0)
    for _ in range(near + 1):
        mine.forward(0)
        mine.forward(1)
    for _ in range(inner):
        mine.backward(1, is_split=True)
        mine.weights()
        mine.forward(1)
    for turn in range(batches // 2 - ranks + near + 1):
        if turn == 0 and inner == 0:  # one after the other, for a smaller bubble
            mine.forward(0)
            mine.backward(1)
        else:
            mine.both(0)
        mine.both(1)
    for _ in range(inner):
        mine.backward(1)
        mine.both(1)
    for number in range(2 * (near + 1)):  # the second half of these backwards puts its weights off
        mine.backward(1 - number % 2, is_split=number >= near + 1)
    for _ in range(inner):
        mine.weights()
        mine.backward(0, is_split=True)
    for _ in range(near + 1):
        mine.weights()
    return mine.slots


SCHEDULES: Mapping[str, Schedule] = {
    "1f1b": Schedule(
        "1F1B",
        one_f_one_b,
        lambda ranks, times: (ranks - 1) * (times.forward + times.backward),
        lambda ranks: ranks,
        1,
        "(PP-1)(F+B)",
    ),
    "zb1p": Schedule(
        "ZB1P",
        zb1p,
        lambda ranks, times: (ranks - 1) * (times.forward + times.backward - 2 * times.weights),
        lambda ranks: ranks,
        1,
        "(PP-1)(F+B-2W)",
    ),
    "dualpipe": Schedule(
        "DualPipe",
        dualpipe,
        lambda ranks, times: (ranks / 2 - 1) * (times.overlapped + times.backward - 3 * times.weights),
        lambda ranks: ranks + 1,
        2,
        "(PP/2-1)(F&B+B-3W)",
    ),
}
