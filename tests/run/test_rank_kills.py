"""Two processes, of which one or all are killed again and again, or one hangs: the run ends by itself, and the bits are the same.

Killed inside steps, rollouts and checkpoints, whole and sharded ones; also the process that started the ranks. The last run of each
test goes undisturbed to the end, and leaves what a run of two processes leaves that nothing has happened to.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from r1_lightning.run.config.exit_codes import LOST
from r1_lightning.run.config.speaking import LOST_LATER_S
from r1_lightning.run.config.starting import END_S
from tests.support.commands import folder
from tests.support.rank_kills import faults, one_fault
from tests.support.stage_kills import Ended, Fault
from tests.support.stage_runs import SAMPLING, STAGES, Runs, check_same

KILLS = 5  # of each run at most; it may be at its end before
ENDED_S = END_S + 15.0  # from a kill to the end of the last process, on a busy machine
LEAVING_S = 10.0  # at most, of a process that leaves the group of those it has lost
TIMEOUT_S = 10
CASES = [(stage, trainer) for stage in STAGES for trainer in ("ddp", "fsdp")]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    made = Runs(tmp_path_factory.mktemp("runs"))
    yield made
    made.start.close()


def errors(ended: Ended) -> list[str]:
    """The lines of errors that the user saw."""
    assert "Traceback" not in ended.text, ended.text[-3000:]
    return [line for line in ended.text.splitlines() if line.startswith("error: ")]


def check_end(ended: Ended, fault: Fault) -> None:
    """One line says what has happened, the exit code is that of the kill, and all processes are gone within the limit."""
    assert ended.late_s < ENDED_S, (fault, ended.late_s)
    whom = fault.action.split()[1]
    if whom == "starter":  # the shell says that it was killed; the ranks have lost only it, and say nothing
        assert ended.code == -signal.SIGKILL and not errors(ended), (fault, ended.code, ended.text[-3000:])
        return
    assert ended.code == 128 + signal.SIGKILL, (fault, ended.code, ended.text[-3000:])
    (line,) = errors(ended)
    rank = "[01]" if whom == "all" else whom  # of both, the one that is seen first
    expected = rf"error: rank {rank} of 2 \(pid \d+\) was killed by SIGKILL; the others end, too"
    assert re.fullmatch(expected, line), (fault, line)


def check(runs: Runs, stage: str, trainer: str, seed: int, root: Path) -> list[str]:
    """Kill ranks of a run of `stage` at moments drawn from `seed`, finish it, and compare; returns the faults that hit."""
    hits: list[str] = []
    for fault in faults(f"{stage} {trainer} {seed}", stage in SAMPLING, trainer == "fsdp"):
        ended = runs(stage, root, fault, trainer=trainer)
        if ended.code == 0 and hits:
            break
        if ended.code == 0:  # the moment did not come: once more, from the start
            root = root / "again"
            continue
        check_end(ended, fault)
        hits.append(str(fault))
        if len(hits) == KILLS:
            break
    runs.check(stage, root, trainer)
    return hits


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "trainer", "seed"), [("grpo", "ddp", 100), ("grpo", "fsdp", 102)])
def test_ranks_killed_at_moments_of_a_seed_leave_the_same_bits(
    runs: Runs, tmp_path: Path, stage: str, trainer: str, seed: int
) -> None:
    assert len(check(runs, stage, trainer, seed, tmp_path)) >= 2


@pytest.mark.slow
def test_a_verifier_that_is_killed_at_work_costs_no_verdict(runs: Runs, tmp_path: Path) -> None:
    """Each rank has one; those of the second and the third call are killed by their task, in the rank that comes first."""
    kills = tmp_path / "kills"
    kills.mkdir()
    pooled = f"+reward.rewards.pooled={{_target_: tests.support.miniature.PooledHash, name: pooled, folder: {kills}}}"
    own = (pooled, "+reward.weights.pooled=1.0")
    expected = folder(runs.finished("grpo", tmp_path / "undisturbed", *own, trainer="ddp"), "grpo")
    for call in ("2", "3"):
        (kills / call).touch()
    found = folder(runs.finished("grpo", tmp_path / "killed", *own, trainer="ddp"), "grpo")
    assert not list(kills.iterdir()), "both calls came"
    check_same(found, expected)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(("stage", "trainer"), CASES)
def test_ranks_killed_at_random_moments_leave_the_same_bits(
    runs: Runs, tmp_path: Path, stage: str, trainer: str, seed: int, record_property: Callable[[str, object], None]
) -> None:
    """The faults that hit a running command are recorded (`--junitxml`)."""
    hits = check(runs, stage, trainer, seed, tmp_path)
    for name, value in {"stage": stage, "trainer": trainer, "seed": seed, "hits": ", ".join(hits)}.items():
        record_property(name, value)
    assert hits


def check_loss(runs: Runs, stage: str, trainer: str, root: Path, fault: Fault) -> None:
    """Another rank finds out that one is gone or silent: a line says so, all end, and the same command goes on.

    It waits `LOST_LATER_S` for a rank that has failed first to say why.
    """
    ended = runs(stage, root, fault, f"trainer.timeout_s={TIMEOUT_S}", trainer=trainer)
    assert ended.code == LOST and ended.late_s < TIMEOUT_S + LOST_LATER_S + LEAVING_S + ENDED_S, (fault, *ended)
    (line,) = errors(ended)
    silent = f"did not answer within trainer.timeout_s; all end|did not meet the others at .*timeout_s={TIMEOUT_S} s"
    gone = "another process of this run has ended; this one ends, too"
    assert re.search(silent if "stop" in fault.action else f"{gone}|{silent}", line), (fault, line)
    runs.check(stage, root, trainer)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(200, 203))
@pytest.mark.parametrize(("stage", "trainer"), CASES)
def test_a_rank_that_hangs_at_any_moment_ends_the_run(
    runs: Runs, tmp_path: Path, stage: str, trainer: str, seed: int
) -> None:
    check_loss(
        runs, stage, trainer, tmp_path, one_fault(f"{stage} {trainer} {seed}", stage in SAMPLING, "stop", watched=True)
    )


@pytest.mark.long
@pytest.mark.parametrize("seed", range(300, 303))
@pytest.mark.parametrize(("stage", "trainer"), CASES)
def test_a_rank_ends_by_itself_where_nobody_watches(
    runs: Runs, tmp_path: Path, stage: str, trainer: str, seed: int
) -> None:
    """As the tasks of `srun` without --kill-on-bad-exit."""
    check_loss(
        runs, stage, trainer, tmp_path, one_fault(f"{stage} {trainer} {seed}", stage in SAMPLING, "kill", watched=False)
    )
