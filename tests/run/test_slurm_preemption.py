"""Jobs of two tasks that SLURM pre-empts again and again, in every phase: resumed, with the bits of an undisturbed run.

SLURM takes a job away in the three ways that it has: by the signal that comes before a time limit, by `scontrol requeue`, and for a
job of a partition that goes first. A task stands still at a moment drawn from a seed until it hears of it, while the other one
works on or waits for it (`tests/support/slurm/preempted.py`).
"""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from r1_lightning.artefacts import store
from tests.run.test_graph_kills import RESULTS
from tests.run.test_slurm_jobs import LIMIT_S, small_pretrain, submit  # noqa: F401 - a fixture
from tests.support.commands import SMALL_MODEL, folder, overrides, start
from tests.support.launched import ended, kill_all, started
from tests.support.slurm.cluster import Cluster
from tests.support.slurm.preempted import Moment
from tests.support.slurm.striking import WAYS, Phase, drawn, preempted
from tests.support.stage_runs import metrics_rows

LENGTHS = "+callbacks.lengths={_target_: tests.support.slurm.lengths.OwnLengths}"
TRAINER = ["trainer.devices=2", "trainer.threads=1"]
SECONDS = 10.0  # from the signal to the end of a task
DRAW, REWARD = "r1_lightning.rollout.sampler:Sampler._has_ended", "tests.support.miniature:HashReward.__call__"
ROLLOUT, SAMPLING = "r1_lightning.data.rollout_data:", "r1_lightning.rollout.rejection_sampling:"
DECODING: Phase = ("rollout, between decode steps", DRAW, ROLLOUT, 10)
REWARDS: Phase = ("between rewards", REWARD, ROLLOUT, 4)
MINIBATCHES: Phase = ("between minibatches", "r1_lightning.stages.grpo:GRPOModule.training_step", "", 3)
START: Phase = ("start", "", "", 1)
EVALUATION: Phase = ("evaluation while training", DRAW, "r1_lightning.callbacks.evaluation:", 6)
# By stage: what comes first, what comes then in any order, and what comes last.
PHASES: dict[str, tuple[list[Phase], list[Phase], list[Phase]]] = {
    "pretrain": (
        [
            START,
            ("building a model", "r1_lightning.run.stages.train:fold_adapters", "", 1),
            ("warm-up of the learning rate", "r1_lightning.stages.pretrain:PretrainModule.training_step", "", 4),
        ],
        [EVALUATION, ("saving a checkpoint", "r1_lightning.callbacks.checkpoint:ResumeCheckpoint.save", "", 2)],
        [],
    ),
    "grpo": (
        [("self-check", DRAW, "r1_lightning.callbacks.self_check:", 6)],
        [START, *[DECODING] * 3, *[REWARDS] * 2, *[MINIBATCHES] * 2, EVALUATION],
        [("final evaluation", DRAW, "r1_lightning.run.stages.train:_evaluate", 6)],
    ),
    "sample": (
        [],
        [
            ("sampling, between decode steps", DRAW, SAMPLING, 20),
            ("sampling, between rewards", REWARD, SAMPLING, 20),
            ("sampling, between blocks", "r1_lightning.rollout.rejection_sampling:BlockMaker.__call__", "", 2),
        ],
        [START],
    ),
}


@pytest.fixture(autouse=True)
def none_is_left() -> Iterator[None]:
    yield
    kill_all()


def record(found: Sequence[Mapping[str, object]], record_property: Callable[[str, object], None]) -> None:
    """Each pre-emption as a line of CSV, the names of its columns first."""
    for number, values in enumerate([found[0].keys(), *(row.values() for row in found)]):
        line = io.StringIO()
        csv.writer(line, lineterminator="").writerow(values)
        record_property(f"line {number}", line.getvalue())


def assert_same(root: Path, undisturbed: Path, stages: Sequence[str]) -> None:
    """Equal weights, rows and completions to the byte, and in `metrics.csv` each step once."""
    for stage in stages:
        one, other = folder(root, stage), folder(undisturbed, stage)
        assert one.name == other.name and store.is_complete(one) and store.is_complete(other)
        for pattern in (*RESULTS, "lengths-*/*.json"):
            expected = {path.relative_to(other): path.read_bytes() for path in other.glob(pattern)}
            assert {path.relative_to(one): path.read_bytes() for path in one.glob(pattern)} == expected, (
                stage,
                pattern,
            )
        if stage != "sample":
            assert metrics_rows(one) == metrics_rows(other)


@pytest.mark.slow
def test_pre_empted_in_a_rollout_its_rewards_and_its_minibatches_the_bits_are_the_same(
    slurm: Cluster,
    submit: Callable[..., tuple[int, str]],  # noqa: F811
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    """Three pre-emptions of one job that makes two stages, one of each kind."""
    rng = random.Random(0)
    root, undisturbed = tmp_path / "runs", tmp_path / "undisturbed"
    words = [word for word in overrides(root, grpo_steps=8, evaluation=False) if not word.startswith("paths.root=")]
    words += [LENGTHS, *TRAINER]
    beside = started([*words, f"paths.root={undisturbed}"], 2)
    moments = drawn([DECODING, REWARDS, MINIBATCHES], rng)
    found = preempted(slurm, submit, root, [*words, "trainer=ddp", "launcher.job_per_stage=false"], moments, rng)
    assert ended(beside).code == 0
    record(found, record_property)
    assert_same(root, undisturbed, ("pretrain", "grpo"))
    assert {row["by"] for row in found} == set(WAYS)
    assert max(float(row["seconds from signal to end of task"]) for row in found) < SECONDS


def words_of(stage: str) -> list[str]:
    """The words of a run of `stage` and its inputs; GRPO and sampling are on a base of their own."""
    measured = ["callbacks.evaluation.every_steps=4", "callbacks.evaluation.problems=4"]
    if stage == "pretrain":
        own = ["stage.max_steps=16", "data.rows_per_batch=4", "optim.warmup_steps=6", *measured]
        return ["stage=pretrain", *SMALL_MODEL, *own, *TRAINER]
    if stage == "grpo":
        words = [word for word in overrides(Path(), grpo_steps=24) if not word.startswith("paths.root=")]
        return [*words, *measured, LENGTHS, *TRAINER]
    rules = "{readable: {mixed_tolerance: 1.0, max_paragraph_chars: 10000, max_repeated_share: 1.0}"
    rules += ", question_language: false, one_per_equations: false, min_edit_distance: 0.0}"
    own = [
        "stage.inputs.base=pretrain",
        'stage.parent_overrides=["stage.max_steps=40","data.rows_per_batch=8","optim.warmup_steps=1"]',
        *[f"~reward.{kind}.format" for kind in ("rewards", "weights")],  # so small a model keeps no form
        "~reward.rewards.accuracy",
        "+reward.rewards.accuracy={_target_: tests.support.miniature.HashReward}",
        "rollout.max_new_tokens=64",
        "stage.problems=72",
        "stage.samples=4",
        "stage.problems_per_block=6",
        "stage.held_out_questions=20",
        f"stage.rules={rules}",
    ]
    return ["stage=sample", *SMALL_MODEL, *own, *TRAINER]


@pytest.mark.long
@pytest.mark.parametrize("stage", PHASES)
def test_pre_empted_in_every_phase_the_bits_are_the_same(
    slurm: Cluster,
    submit: Callable[..., tuple[int, str]],  # noqa: F811
    tmp_path: Path,
    record_property: Callable[[str, object], None],
    stage: str,
) -> None:
    """A job for each stage; 20 pre-emptions in all, each recorded (`--junitxml`): a line of reports/preemption/slurm.csv."""
    assert sum(len(part) for parts in PHASES.values() for part in parts) == 20
    rng = random.Random(stage)
    first, middle, last = PHASES[stage]
    phases = [*first, *rng.sample(middle, len(middle)), *last]
    root, undisturbed = tmp_path / "runs", tmp_path / "undisturbed"
    beside = started([*words_of(stage), f"paths.root={undisturbed}"], 2)
    found = preempted(slurm, submit, root, [*words_of(stage), "trainer=ddp"], drawn(phases, rng), rng)
    record(found, record_property)
    assert ended(beside).code == 0
    assert_same(root, undisturbed, ["pretrain"] if stage == "pretrain" else ["pretrain", stage])
    assert {row["stage"] for row in found} == {stage}


@pytest.mark.long
def test_pre_empted_while_a_step_is_compiled_the_bits_are_the_same(
    slurm: Cluster,
    submit: Callable[..., tuple[int, str]],  # noqa: F811
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    """One task, which leaves the compiler at once (it polls nothing), twice in the first step of a job."""
    rng = random.Random(2)
    root, undisturbed = tmp_path / "runs", tmp_path / "undisturbed"
    words = [
        word for word in small_pretrain(root, "precision.compile=true", "trainer.threads=1") if "paths." not in word
    ]
    beside = start([*words, f"paths.root={undisturbed}"])
    step = "r1_lightning.stages.pretrain:PretrainModule.training_step"
    moments = [
        Moment(number, "first compile", step, "", 1, 0, rng.uniform(1.0, 8.0), still=False) for number in range(2)
    ]
    cold = f"+launcher.env.TORCHINDUCTOR_CACHE_DIR={tmp_path / 'compiled'}"
    found = preempted(slurm, submit, root, [*words, cold], moments, rng)
    assert beside.wait(timeout=2 * LIMIT_S) == 0
    record(found, record_property)
    assert_same(root, undisturbed, ["pretrain"])
    assert all(float(row["seconds from signal to end of task"]) < SECONDS for row in found)
