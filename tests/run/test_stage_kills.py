"""Every stage that trains, killed by SIGKILL again and again inside steps, rollouts and checkpoints: the bits are the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from tests.support.stage_kills import moments
from tests.support.stage_runs import SAMPLING, STAGES, Runs

# That hit, of each seed: a run may be at its end before its sixth; before its second, another one begins.
LEAST, KILLS = 2, 6


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    made = Runs(tmp_path_factory.mktemp("runs"))
    yield made
    made.start.close()


def check(runs: Runs, stage: str, given: Iterable[str], root: Path, *more: str) -> list[str]:
    """Kill a run of `stage` at the `given` moments, finish it, and compare; returns the moments that hit.

    A run that is at its end before a second moment came is compared, and the moments go on in another one.
    """
    hits: list[str] = []
    for moment in given:
        ended = runs(stage, root, moment, *more)
        assert ended.code in (0, -9), (moment, ended.text[-3000:])
        if ended.code == 0 and len(hits) >= LEAST:
            break
        if ended.code == 0:
            runs.check(stage, root)
            root = root / "again"
            continue
        hits.append(moment)
        if len(hits) == KILLS:
            break
    runs.check(stage, root)
    return hits


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "seed"), [("pretrain", 100), ("grpo", 101), ("distill", 102)])
def test_killed_at_moments_of_a_seed_the_bits_are_the_same(runs: Runs, tmp_path: Path, stage: str, seed: int) -> None:
    assert len(check(runs, stage, moments(seed, stage in SAMPLING), tmp_path)) >= LEAST


@pytest.mark.slow
def test_killed_while_a_thread_writes_the_bits_are_the_same(runs: Runs, tmp_path: Path) -> None:
    """In pieces of the first, second and third checkpoint of a process, before they are synced, and beside their renaming."""
    given = ["40 writing", "150 writing", "2 syncing", "6 syncing", "4 renaming", "3 renaming", "260 writing"]
    hits = check(runs, "grpo", given, tmp_path, "trainer.checkpoint_async=true")
    assert len(hits) >= 4, hits


@pytest.mark.long
@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("stage", STAGES)
def test_killed_at_random_moments_of_every_stage_the_bits_are_the_same(
    runs: Runs, tmp_path: Path, stage: str, seed: int, record_property: Callable[[str, object], None]
) -> None:
    """The moments that hit a running process are recorded (`--junitxml`)."""
    hits = check(runs, stage, moments(seed, stage in SAMPLING), tmp_path)
    record_property("stage", stage)
    record_property("seed", seed)
    record_property("hits", ", ".join(hits))
    assert len(hits) >= LEAST, hits
