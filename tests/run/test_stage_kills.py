"""Every stage that trains, killed by SIGKILL again and again inside steps, rollouts and checkpoints: the bits are the same."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from r1_lightning.artefacts import store
from tests.support.commands import SMALL_MODEL, folder
from tests.support.stage_kills import Starter, moments

KILLS = 6  # of each run at most; it may be at its end before
STEPS = 12

SMALL = [override for override in SMALL_MODEL if "self_check" not in override]
SMALL += [f"stage.max_steps={STEPS}", "stage.evaluation=null", "trainer.threads=1", "optim.lr=0.01"]
SAMPLED = ["rollout.max_new_tokens=12"]
STAGES: dict[str, list[str]] = {
    "pretrain": ["data.rows_per_batch=4", "stage.bias_update_speed=0.01"],
    "sft": ["data.examples_per_batch=4", "data.examples.file={root}/rows.jsonl"],
    "grpo": [
        *SAMPLED,
        "rollout.prompts_per_rollout=2",
        "rollout.group_size=4",
        "rollout.minibatches_per_rollout=4",
        "rollout.micro_batches=2",
        "stage.reference_refresh_steps=4",
        "+reward.rewards.hash={{_target_: tests.support.miniature.HashReward, name: hash}}",
        "+reward.weights.hash=1.0",
    ],
    "distill": [
        "data=on_policy",
        "rollout=default",
        "objective=js",
        *SAMPLED,
        "data.items_per_batch=4",
        "data.on_policy_fraction=0.5",
        "+stage.inputs.teacher.folder={teacher}",
    ],
    "reward_model": ["data.items_per_batch=4"],
}
SAMPLING = ("grpo", "distill")


class Runs:
    """Commands of every stage, from one base and one teacher, and what each leaves if nothing interrupts it."""

    def __init__(self, root: Path) -> None:
        self.root, self.start = root, Starter()
        self.undisturbed: dict[str, Path] = {}
        rows = [{"question": f"what is {n}+{n + 1}?", "completion": f"{2 * n + 1}"} for n in range(10, 50)]
        (root / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
        self.base = self.once("pretrain")
        self.teacher = folder(self.finished("pretrain", root / "teacher", "stage.max_steps=20"), "pretrain")

    def once(self, stage: str) -> Path:
        """The artefact's folder of an undisturbed run of `stage`."""
        if stage not in self.undisturbed:
            self.undisturbed[stage] = folder(self.finished(stage, self.root / f"undisturbed-{stage}"), stage)
        return self.undisturbed[stage]

    def finished(self, stage: str, root: Path, *more: str) -> Path:
        code = self(stage, root, None, *more)
        assert code == 0, (root / "output.txt").read_text(encoding="utf-8")[-3000:]
        return root

    def __call__(self, stage: str, root: Path, moment: str | None, *more: str) -> int:
        """Start the command of `stage` below `root`, and return its exit code."""
        root.mkdir(exist_ok=True)
        own = [text.format(root=self.root, teacher=getattr(self, "teacher", "")) for text in STAGES[stage]]
        base = [] if stage == "pretrain" else [f"init_from={self.base}"]
        return self.start(
            [f"stage={stage}", *SMALL, *own, *base, f"paths.root={root}", *more], moment, root / "output.txt"
        )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    made = Runs(tmp_path_factory.mktemp("runs"))
    yield made
    made.start.close()


def metrics_rows(artefact: Path) -> list[dict[str, str]]:
    """metrics.csv without what depends on the clock."""
    with (artefact / "tensorboard" / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if not k.startswith("perf/")} for row in csv.DictReader(file)]


def check(runs: Runs, stage: str, seed: int, root: Path) -> list[str]:
    """Kill a run of `stage` at moments drawn from `seed`, finish it, and compare; returns the moments that hit."""
    hits: list[str] = []
    for moment in moments(seed, stage in SAMPLING):
        code = runs(stage, root, moment)
        assert code in (0, -9), (moment, (root / "output.txt").read_text(encoding="utf-8")[-3000:])
        if code == 0:
            break
        hits.append(moment)
        if len(hits) == KILLS:
            break
    found, expected = folder(runs.finished(stage, root), stage), runs.once(stage)
    assert (found / store.WEIGHTS).read_bytes() == (expected / store.WEIGHTS).read_bytes(), hits
    assert metrics_rows(found) == metrics_rows(expected) and len(metrics_rows(found)) == STEPS, hits
    assert {path.name for path in found.iterdir()} == {path.name for path in expected.iterdir()}, "nothing is left over"
    return hits


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "seed"), [("pretrain", 100), ("grpo", 101), ("distill", 102)])
def test_killed_at_moments_of_a_seed_the_bits_are_the_same(runs: Runs, tmp_path: Path, stage: str, seed: int) -> None:
    assert len(check(runs, stage, seed, tmp_path)) >= 2


@pytest.mark.long
@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("stage", STAGES)
def test_killed_at_random_moments_of_every_stage_the_bits_are_the_same(
    runs: Runs, tmp_path: Path, stage: str, seed: int, record_property: Callable[[str, object], None]
) -> None:
    """The moments that hit a running process are recorded (`--junitxml`)."""
    hits = check(runs, stage, seed, tmp_path)
    record_property("stage", stage)
    record_property("seed", seed)
    record_property("hits", ", ".join(hits))
    assert len(hits) >= 2, hits
