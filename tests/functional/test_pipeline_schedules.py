"""Pipeline schedules: orders by hand, and simulated bubbles against Table 2 of DeepSeek-V3."""

from __future__ import annotations

import random
from itertools import product

import pytest

from r1_lightning.functional.pipeline import ChunkTimes, Order
from r1_lightning.functional.pipeline_schedules import SCHEDULES, dualpipe, one_f_one_b, zb1p
from r1_lightning.types.errors import InvalidInput

NAMES = list(SCHEDULES)
UNIFORM = ChunkTimes(1.0, 2.0, 1.0, 3.0)  # F = I = W = 1


def words(order: Order, rank: int) -> str:
    """As a person would write it: small letters enter at the last rank, + joins what overlaps."""
    slots = [
        "+".join((chunk.kind.lower() if chunk.is_reverse else chunk.kind) + str(chunk.batch) for chunk in slot)
        for slot in order[rank]
    ]
    return " ".join(slots)


def test_orders_by_hand():
    # 1F1B, 3 ranks: rank 0 reads 2 ahead, rank 1 reads 1, rank 2 none.
    order = one_f_one_b(3, 4)
    assert words(order, 0) == "F0 F1 F2 B0 F3 B1 B2 B3"
    assert words(order, 1) == "F0 F1 B0 F2 B1 F3 B2 B3"
    assert words(order, 2) == "F0 B0 F1 B1 F2 B2 F3 B3"
    # ZB-H1: the last of 3 ranks owes the weights of 2 micro-batches, rank 0 of none.
    order = zb1p(3, 4)
    assert words(order, 0) == "F0 F1 F2 I0 W0 F3 I1 W1 I2 W2 I3 W3"
    assert words(order, 2) == "F0 I0 F1 I1 F2 I2 W0 F3 I3 W1 W2 W3"
    # DualPipe, 2 ranks, both in the middle: fill 1 pair, 4/2 - 2 + 0 + 1 = 1 turn of the long middle, whose first pair does not
    # overlap, then 2 backwards, the second with its weights put off.
    order = dualpipe(2, 4)
    assert words(order, 0) == "F0 f0 F1 b0 f1+B0 b1 I1 W1"
    assert words(order, 1) == "f0 F0 f1 B0 F1+b0 B1 i1 w1"


@pytest.mark.parametrize(
    ("name", "bubble", "activations", "end"),
    [
        ("1f1b", 45, 16, 225),  # 15 x (1 + 2); the work of a rank is 60 x 3 = 180
        ("zb1p", 15, 16, 195),  # 15 x (1 + 2 - 2)
        ("dualpipe", 14, 17, 194),  # 7 x (3 + 2 - 3); 30 micro-batches each way, of two stages: 60 x 3
    ],
)
def test_v3s_sixteen_ranks(name: str, bubble: float, activations: int, end: float):
    """PP = 16 (V3 section 3.2) and 60 micro-batches, F = I = W = 1."""
    timeline, schedule = SCHEDULES[name].run(16, 60, UNIFORM), SCHEDULES[name]
    assert (timeline.bubble, timeline.end) == (bubble, end)
    assert max(timeline.activations(rank) for rank in range(16)) == activations == schedule.activations(16)


def times_in_domain(name: str, draw: random.Random) -> ChunkTimes:
    """Times for which the module says that the formula is exact."""
    forward, inputs, weights = (float(draw.randrange(1, 9)) for _ in range(3))
    if name == "zb1p":
        weights = min(weights, inputs, forward)
    if name == "dualpipe":
        inputs = forward
        weights = min(weights, forward)
    backward = inputs + weights
    return ChunkTimes(forward, backward, weights, draw.uniform(max(forward, backward), forward + backward))


@pytest.mark.parametrize("name", NAMES)
def test_simulated_bubbles_are_those_of_table_2(name: str):
    """Every rank of 1F1B and ZB1P idles as long as the formula says; of DualPipe the idlest rank (others may save an overlap)."""
    draw, schedule = random.Random(0), SCHEDULES[name]
    for ranks, more in product((2, 4, 6, 8), (0, 2, 6)):
        for _ in range(5):
            times = times_in_domain(name, draw)
            timeline = schedule.run(ranks, 2 * ranks + more, times)
            wanted = pytest.approx(schedule.bubble(ranks, times), abs=1e-9)
            assert timeline.bubble == wanted, (ranks, more, times)
            assert max(timeline.activations(rank) for rank in range(ranks)) == schedule.activations(ranks)
            if name != "dualpipe":
                assert [timeline.idle(rank) for rank in range(ranks)] == [wanted] * ranks


def test_formulas_are_those_of_the_paper():
    """PP = 8, F = 2, B = 5, W = 3, F&B = 6: 7 x 7 = 49; 7 x (7 - 6) = 7; 3 x (6 + 5 - 9) = 6."""
    times = ChunkTimes(2.0, 5.0, 3.0, 6.0)
    assert [SCHEDULES[name].bubble(8, times) for name in ("1f1b", "zb1p", "dualpipe")] == [49, 7, 6]
    assert [SCHEDULES[name].activations(8) for name in NAMES] == [8, 8, 9]
    assert [SCHEDULES[name].parameters for name in NAMES] == [1, 1, 2]


def test_outside_their_domain_the_formulas_are_not_exact():
    """F = 1, B = 2, W = 1/2, F&B = 3 on 4 ranks: the formula says 1 x (3 + 2 - 1.5) = 3.5, the published order takes 3."""
    times = ChunkTimes(1.0, 2.0, 0.5, 3.0)
    assert SCHEDULES["dualpipe"].bubble(4, times) == 3.5 and SCHEDULES["dualpipe"].run(4, 8, times).bubble == 3


@pytest.mark.parametrize("name", NAMES)
def test_every_stage_sees_every_micro_batch_once(name: str):
    """And no chunk begins before the chunk it needs has ended, on whatever rank that was."""
    timeline = SCHEDULES[name].run(6, 14, ChunkTimes(1.5, 3.25, 1.25, 4.0))
    ends, starts = {}, {}
    for rank, row in enumerate(timeline.ranks):
        for timed in row:
            for chunk in timed.slot:
                stage = 5 - rank if chunk.is_reverse else rank
                for kind in "IW" if chunk.kind == "B" else chunk.kind:
                    key = (kind, chunk.is_reverse, chunk.batch, stage)
                    assert key not in ends
                    ends[key], starts[key] = timed.end, timed.start
    ways = [(False, batch) for batch in range(14)]
    if name == "dualpipe":
        ways = [(way, batch) for way in (False, True) for batch in range(7)]
    assert set(ends) == {(kind, *way, stage) for kind in "FIW" for way in ways for stage in range(6)}
    for way, stage in product(ways, range(5)):
        assert ends["F", *way, stage] <= starts["F", *way, stage + 1]
        assert ends["I", *way, stage + 1] <= starts["I", *way, stage]


@pytest.mark.parametrize(
    ("name", "ranks", "batches", "says"),
    [
        ("1f1b", 1, 8, "ranks=1 is not allowed: it must be a whole number of at least 2"),
        ("zb1p", 8, 7, "micro_batches=7 is not allowed: it must be a whole number of at least 8"),
        ("dualpipe", 5, 20, "ranks=5 is not allowed: DualPipe needs an even number"),
        ("dualpipe", 4, 9, "micro_batches=9 is not allowed: DualPipe needs an even number of at least 8"),
        ("dualpipe", 4, 6, "micro_batches=6 is not allowed"),
    ],
)
def test_what_a_schedule_cannot_do(name: str, ranks: int, batches: int, says: str):
    with pytest.raises(InvalidInput, match=says):
        SCHEDULES[name].run(ranks, batches, UNIFORM)
