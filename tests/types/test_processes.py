"""One process and several: what each computes, what all add up, collect and agree on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from r1_lightning.types.processes import ONE, Processes, ProcessGroup, processes_now
from tests.support.processes import in_processes


def test_shares_of_seven_over_three() -> None:
    # 7 = 3 + 2 + 2: the first process has the one that is over.
    shares = [Processes(rank, 3).share("abcdefg") for rank in range(3)]
    assert shares == ["abc", "de", "fg"]


def test_a_share_of_too_few_is_empty() -> None:
    assert [Processes(rank, 3).share([1]) for rank in range(3)] == [[1], [], []]


@given(st.lists(st.integers()), st.integers(1, 9))
def test_shares_in_order_of_rank_are_the_whole(items: list[int], count: int) -> None:
    shares = [Processes(rank, count).share(items) for rank in range(count)]
    assert [item for share in shares for item in share] == items
    sizes = {len(share) for share in shares}
    assert max(sizes) - min(sizes) <= 1


def test_one_process_returns_what_it_is_given() -> None:
    values = torch.tensor([1.0, 2.0])
    assert ONE.sum(values) is values
    assert ONE.collect("a") == ["a"]
    assert ONE.gather((1, 2)) == [1, 2]
    assert ONE.from_main(lambda: 3) == 3
    assert ONE.any(True) and not ONE.any(False) and ONE.all(True) and not ONE.all(False)
    assert ONE.is_main and ONE.share([1, 2]) == [1, 2]
    ONE.barrier()
    assert processes_now() is ONE


def test_a_group_needs_torch_distributed() -> None:
    with pytest.raises(RuntimeError, match="init_process_group"):
        ProcessGroup.of_group()


def _all_of_it(processes: Processes, items: Sequence[int]) -> dict[str, Any]:
    rank = processes.rank
    own = torch.tensor([rank, 10], dtype=torch.int64)
    found = {
        "main": processes.is_main,
        "sum": processes.sum(own).tolist(),
        "own": own.tolist(),  # the sum is another tensor
        "collected": processes.collect({"rank": rank}),
        "gathered": processes.gather([item * item for item in processes.share(items)]),
        "from main": processes.from_main(lambda: ("made by", rank)),
        "any": [processes.any(rank == 1), processes.any(False)],
        "all": [processes.all(rank == 1), processes.all(True)],
        "now": processes_now() == processes,
    }
    processes.barrier()
    return found


def test_three_processes_add_collect_and_agree() -> None:
    found = in_processes(3, _all_of_it, [1, 2, 3, 4])
    assert [each.pop("main") for each in found] == [True, False, False]
    assert [each.pop("own") for each in found] == [[0, 10], [1, 10], [2, 10]]
    # 0 + 1 + 2 = 3 and 3 * 10 = 30; everything else is the same everywhere, too.
    expected = {
        "sum": [3, 30],
        "collected": [{"rank": 0}, {"rank": 1}, {"rank": 2}],
        "gathered": [1, 4, 9, 16],
        "from main": ("made by", 0),
        "any": [True, False],
        "all": [False, True],
        "now": True,
    }
    assert found == [expected] * 3


def _waits(processes: Processes) -> bool:
    """The main process is late: the others' barrier ends after its arrival."""
    if processes.is_main:
        time.sleep(0.3)
    before = time.monotonic()
    processes.barrier()
    return processes.is_main or time.monotonic() - before > 0.1


def test_a_barrier_waits_for_the_last() -> None:
    assert all(in_processes(2, _waits))


def _fails(processes: Processes) -> None:
    if processes.rank == 1:
        raise ValueError("rank one is at fault")
    processes.barrier()  # never ends by itself


def test_a_fault_of_one_process_is_told() -> None:
    with pytest.raises(pytest.fail.Exception, match="rank one is at fault"):
        in_processes(2, _fails)


def _hangs(processes: Processes) -> None:
    time.sleep(60)


def test_a_process_that_hangs_is_killed_at_the_limit() -> None:
    with pytest.raises(pytest.fail.Exception, match=r"-9, -9\] within 0.5 s"):
        in_processes(2, _hangs, limit_s=0.5)
