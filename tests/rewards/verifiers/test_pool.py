"""The pool: verdicts by position whatever the order, kills that cost one verdict, and no process left behind."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from r1_lightning.rewards.verifiers import pool as pools
from r1_lightning.rewards.verifiers.pool import CRASHED, TIMED_OUT, PoolVerdict, VerifierPool, cpu_seconds
from r1_lightning.types.errors import InvalidInput
from tests.rewards.equality.test_quick import cases
from tests.rewards.verifiers.hostile import hostile_answer

# Passes every bound and keeps sympy busy for far longer than any limit here.
SLOW = (r"\sum_{k=1}^{499}\binom{n}{k}k!", r"\sum_{k=1}^{498}\binom{n}{k}k!")
REFERENCES = ("42", r"\frac{\sqrt{3}}{2}", "x^2+1", "[1,2)", "x<3", r"\{1,2\}")


@pytest.fixture(scope="module")
def pool() -> Iterator[VerifierPool]:
    pool = VerifierPool(workers=2)
    yield pool
    pool.close()


def is_alive(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return "\nState:\tZ" not in Path(f"/proc/{process_id}/status").read_text(encoding="ascii", errors="replace")


def test_verdicts_come_by_position_and_depend_on_nothing_else(pool: VerifierPool) -> None:
    rows = cases()[::4]
    pairs = [(answer, reference) for _, answer, reference, *_ in rows]
    verdicts = pool.compare_many(pairs)
    assert [verdict.same for verdict in verdicts] == [expected for *_, expected, _ in rows]
    assert not any(verdict.timed_out for verdict in verdicts)
    assert pool.compare_many(pairs[::-1]) == verdicts[::-1]
    assert pool.compare_many(pairs[:1] * 3) == verdicts[:1] * 3
    alone = VerifierPool(workers=1)
    found: list[list[PoolVerdict]] = []
    thread = threading.Thread(target=lambda: found.append(alone.compare_many(pairs)))
    thread.start()
    thread.join()
    alone.close()
    assert found == [verdicts]


def test_nothing_to_do_starts_nothing() -> None:
    pool = VerifierPool(workers=2)
    assert pool.compare_many([]) == [] and pool.process_ids() == []


def test_a_task_that_takes_too_much_cpu_time_costs_its_own_verdict() -> None:
    pool = VerifierPool(workers=1, cpu_limit_s=0.3)
    assert pool.compare_many([("x+1", "1+x")])[0].same
    before = pool.process_ids()
    assert pool.compare_many([SLOW, ("x+2", "2+x")]) == [TIMED_OUT, PoolVerdict(True, "formulas")]
    assert not is_alive(before[0]) and not set(before) & set(pool.process_ids())
    pool.close()


def test_a_task_that_sleeps_is_ended_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = VerifierPool(workers=1)
    pool.compare_many([("x", "y")])
    os.kill(pool.process_ids()[0], signal.SIGSTOP)
    monkeypatch.setattr(pools, "CLOCK_FACTOR", 0.1)
    assert pool.compare_many([("x+1", "1+x")]) == [TIMED_OUT]
    pool.close()


def test_a_worker_that_is_killed_while_it_waits_costs_nothing() -> None:
    pool = VerifierPool(workers=1)
    pool.compare_many([("x", "y")])
    os.kill(pool.process_ids()[0], signal.SIGKILL)
    assert [verdict.same for verdict in pool.compare_many([("x+1", "1+x"), ("x+2", "2+x")])] == [True, True]
    pool.close()


def test_a_worker_that_is_killed_at_work_costs_nothing_and_a_task_that_kills_twice_costs_its_verdict(
    tmp_path: Path,
) -> None:
    """`dying_worker` kills itself on a file that is there, which it removes, and on "always"."""
    once = tmp_path / "once"
    once.touch()
    pool = VerifierPool(workers=2, program="tests.rewards.verifiers.dying_worker")
    found = pool.compare_many([("first", ""), (str(once), ""), ("always", ""), ("last", "")])
    same = PoolVerdict(True, "same")
    assert found == [same, same, CRASHED, same] and not once.exists()
    assert pool.compare_many([("always", "")]) == [CRASHED] and len(pool.process_ids()) <= 2
    pool.close()


def test_a_worker_that_is_killed_before_it_is_ready_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """But not for ever."""
    killed: list[int] = []

    class Kills(VerifierPool):
        def _start(self) -> None:
            super()._start()
            if len(killed) < kills:
                killed.append(self._alive[-1].process.pid)
                os.kill(killed[-1], signal.SIGKILL)

    kills = 2
    pool = Kills(workers=1, program="tests.rewards.verifiers.dying_worker")
    assert pool.compare_many([("first", "")])[0].same and len(killed) == 2
    pool.close()
    kills, killed[:] = 99, []
    with pytest.raises(RuntimeError, match="ended with exit code -9 before its first task"):
        pool.compare_many([("first", "")])
    assert len(killed) == 4 and pool.process_ids() == []


def test_workers_are_replaced_after_their_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "TASKS_PER_WORKER", 2)
    pool = VerifierPool(workers=1)
    assert [verdict.same for verdict in pool.compare_many([(f"x+{n}", f"{n}+x") for n in range(5)])] == [True] * 5
    pool.close()


def test_a_worker_that_cannot_start_stops_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    pool = VerifierPool(workers=1)
    with pytest.raises(RuntimeError, match="before its first task"):
        pool.compare_many([("x", "y")])
    assert pool.process_ids() == []


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(InvalidInput, match="workers"):
        VerifierPool(workers=0)
    with pytest.raises(InvalidInput, match="cpu_limit_s"):
        VerifierPool(cpu_limit_s=0)
    with pytest.raises(InvalidInput, match="memory_limit_mb"):
        VerifierPool(memory_limit_mb=16)


def test_no_process_stays_behind() -> None:
    """At `close`, when the pool is forgotten, and when its process is killed."""
    pool = VerifierPool(workers=2)
    pool.compare_many([("x", "y"), ("y", "z")])
    closed = pool.process_ids()
    pool.close()
    pool.compare_many([("x", "y")])
    forgotten = pool.process_ids()
    del pool
    assert len(closed) == 2 and len(forgotten) == 1 and not any(map(is_alive, closed + forgotten))
    code = (
        "import os, sys; from r1_lightning.rewards.verifiers.pool import VerifierPool; pool = VerifierPool(1)\n"
        "pool.compare_many([('x', 'y')]); print(*pool.process_ids(), flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    orphan = int(done.stdout)
    for _ in range(300):
        if not is_alive(orphan):
            break
        time.sleep(0.1)
    assert not is_alive(orphan)


def test_the_clock_of_a_process() -> None:
    assert cpu_seconds(os.getpid()) > 0 and cpu_seconds(2**22 + 1) == 0.0
    assert copy.copy(TIMED_OUT) == TIMED_OUT


def hostile_verdicts(pool: VerifierPool, count: int) -> list[PoolVerdict]:
    pairs = [(hostile_answer(number), REFERENCES[number % len(REFERENCES)]) for number in range(count)]
    short = [(given[:1_000], reference) for given, reference in pairs]  # extraction lets no more through
    verdicts = pool.compare_many(short)
    assert len(pool.process_ids()) <= pool.workers
    assert pool.compare_many([("x+1", "1+x")])[0].same
    return verdicts


def test_hostile_answers_finish(pool: VerifierPool) -> None:
    verdicts = hostile_verdicts(pool, 400)
    assert len(verdicts) == 400 and not any(verdict.same for verdict in verdicts) and CRASHED not in verdicts


@pytest.mark.slow
def test_ten_thousand_hostile_answers_finish(pool: VerifierPool) -> None:
    """Half a minute on two busy cores; the rate stands in docs/log.md."""
    verdicts = hostile_verdicts(pool, 10_000)
    assert len(verdicts) == 10_000 and not any(verdict.same for verdict in verdicts) and CRASHED not in verdicts
