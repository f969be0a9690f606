"""Jobs on a real SLURM of one machine: to the end, two tasks, in a graph, in an array, failing, queued again, submitted twice."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from r1_lightning.artefacts import store
from r1_lightning.artefacts.steps import last_step
from r1_lightning.run.commands.sbatch import PROGRAM, Job, Task, render
from r1_lightning.run.commands.submit import main
from tests.run.config.test_slurm import settings
from tests.run.documented import commands
from tests.run.test_processes import difference, rows
from tests.support.commands import ROOT, SMALL_MODEL, folder, overrides, train
from tests.support.slurm.cluster import Cluster

pytestmark = pytest.mark.slow

ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")
# Weights of two tasks beside those of one process, after five steps of pre-training and five of GRPO with a learning rate of 0.002:
# 1.5e-6 apart by DDP and 2.7e-6 by FSDP when this was written. AdamW makes rounding larger where a gradient is nearly 0.
CLOSE = 1e-5
LIMIT_S = 240  # of a wait for a job: a process imports torch first, on a busy machine in half a minute


@pytest.fixture
def submit(
    slurm: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """`submit("stage=grpo", ...)` returns the exit code and what the command printed."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # where the tests' own reward is
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["r1 submit", *words])
        capsys.readouterr()
        code = main()
        out, err = capsys.readouterr()
        return code, out + err

    return run


def jobs_of(said: str) -> dict[str, str]:
    """The job of each stage by its name, of what `r1 submit` printed."""
    return {found[1]: found[2] for found in re.finditer(r"^([a-z_]+)-[0-9a-f]{10}: job (\S+?),?(?: |$)", said, re.M)}


def until(condition: Callable[[], bool], what: str) -> None:
    end_s = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end_s, f"no {what} after {LIMIT_S} s"
        time.sleep(0.1)


def small_pretrain(root: Path, *words: str) -> list[str]:
    own = ["stage=pretrain", "stage.max_steps=2", "data.rows_per_batch=2", "optim.warmup_steps=1"]
    return [*own, *SMALL_MODEL, f"paths.root={root}", *words]


def test_readme_s_lines_on_a_cluster(slurm: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As printed, in their order, from an empty folder; NAME is this cluster's partition, and the sizes are small."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    lines = [piece.words for piece in commands() if (piece.document, piece.section) == ("README.md", "On a cluster")]
    assert len(lines) == 4 and all(words[:2] == ("python", "scripts/submit.py") for words in lines)
    small = overrides(Path("runs"), 2, 2, evaluation=False)[1:]
    said = []
    for words in lines:
        typed = [word.replace("=NAME", "=test") for word in words[2:]]
        more = small if any(word.startswith("stage=") for word in typed) else []
        command = [sys.executable, str(ROOT / "scripts" / "submit.py"), *typed, *more]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT_S)
        assert done.returncode == 0, (words, done.stderr)
        said.append(done.stdout)
    assert said[0].count("#!/usr/bin/env bash") == 2 and "#SBATCH --time=04:00:00" in said[0]
    assert list(jobs_of(said[1])) == ["pretrain", "grpo"] and "cancel  scancel" in said[1]
    assert len(re.findall("^grpo-", said[2], re.M)) == 2
    assert len(said[3].splitlines()) == 1 + 6
    until(lambda: not slurm.call("squeue", "-h").stdout.strip(), "end of the jobs")
    assert len([path for path in (tmp_path / "runs").glob("grpo-*") if store.is_complete(path)]) == 3


def test_three_stages_are_three_jobs(slurm: Cluster, submit: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    """pretrain, a reward model on it, and GRPO after both; each job makes its own stage alone."""
    root = tmp_path / "runs"
    words = [word for word in overrides(root, evaluation=False) if not word.startswith("stage.parent_overrides")]
    small = '"stage.max_steps=2","data.rows_per_batch=4","optim.warmup_steps=1"'
    reward = '+stage.inputs.helpful={stage: reward_model, overrides: ["stage.max_steps=2"]}'
    code, said = submit(*words, f"stage.parent_overrides=[{small}]", reward)
    assert code == 0, said
    jobs = jobs_of(said)
    assert list(jobs) == ["pretrain", "reward_model", "grpo"]
    assert slurm.wait_for(jobs["grpo"], ENDED, 3 * LIMIT_S)["JobState"] == "COMPLETED", submit("status", str(root))
    for stage, others in (("pretrain", ()), ("reward_model", ("pretrain: running",)), ("grpo", ("missing, building",))):
        log = (folder(root / "slurm", stage) / "latest.txt").read_text()
        assert f"{stage}: running -> " in log and not any(other in log for other in others), log
        assert store.is_complete(folder(root, stage))
    commit = (next((root / "slurm" / "code").iterdir()) / "commit.txt").read_text().strip()
    assert store.open_artefact(folder(root, "grpo")).commit == commit
    code, said = submit("status", str(root))
    assert [line.split()[2] for line in said.splitlines()[1:]] == ["complete"] * 3, said


def test_jobs_of_two_tasks_make_the_artefacts_of_one_process(
    slurm: Cluster, submit: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    """Pre-training and GRPO by `trainer=ddp` and by `trainer=fsdp`, beside each other, and by one process without SLURM."""
    jobs: dict[str, str] = {}

    def words(name: str) -> list[str]:
        return [*overrides(tmp_path / name, evaluation=False), "optim.lr=0.002", "trainer.threads=1"]

    for trainer in ("ddp", "fsdp"):
        several = [f"trainer={trainer}", "trainer.devices=2", "launcher.job_per_stage=false"]
        code, said = submit(*words(trainer), *several)
        assert code == 0, said
        jobs[trainer] = jobs_of(said)["grpo"]
    assert train(words("one")).code == 0
    reward = "rollout/reward_mean"
    for trainer, job in jobs.items():
        root = tmp_path / trainer
        found = slurm.wait_for(job, ENDED, LIMIT_S)
        log = (folder(root / "slurm", "grpo") / "latest.txt").read_text()
        assert (found["JobState"], found["ExitCode"], found["NumTasks"]) == ("COMPLETED", "0:0", "2"), log
        assert log.count("planning (seed") == 1, log  # rank 0 alone speaks
        for stage in ("pretrain", "grpo"):
            assert difference(root, tmp_path / "one", stage) < CLOSE
        assert [row[reward] for row in rows(root, "grpo")] == [row[reward] for row in rows(tmp_path / "one", "grpo")]


def test_an_array_of_two_seeds_in_a_hostile_folder(
    slurm: Cluster, submit: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    root = tmp_path / "it's $(touch hurt) `x` 50%j 中"
    code, said = submit("-m", *small_pretrain(root, "seed=0,1"))
    assert code == 0, said
    (number,) = {job.partition("_")[0] for job in re.findall(r"job (\S+)", said)}
    until(lambda: not slurm.call("squeue", "-h", "-j", number).stdout.strip(), "end of the array")
    _, said = submit("status", str(root))
    assert [line.split()[2] for line in said.splitlines()[1:]] == ["complete"] * 2, said
    assert len([path for path in root.glob("pretrain-*") if store.is_complete(path)]) == 2
    assert not list(tmp_path.rglob("hurt"))
    assert len(list((root / "slurm").glob(f"pretrain-*/slurm-{number}_*.txt"))) == 2, "SLURM's own messages"


def test_the_exit_code_of_a_failing_job_reaches_the_user(
    slurm: Cluster, submit: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    """Another process takes the folder of the base while its job waits: exit code 2, and what needs the base does not start."""
    root = tmp_path / "runs"
    code, said = submit(*overrides(root), 'launcher.sbatch_args=["--hold"]')
    assert code == 0, said
    jobs = jobs_of(said)
    digits = re.search(r"pretrain-([0-9a-f]{10})", said)
    assert digits is not None
    held = store.create(root, "pretrain", "tiny", "arithmetic", digits[1] + "0" * 54).folder
    with store.locked(held):
        slurm.call("scontrol", "release", jobs["pretrain"])
        slurm.call("scontrol", "release", jobs["grpo"])
        found = slurm.wait_for(jobs["pretrain"], ENDED, LIMIT_S)
    assert (found["JobState"], found["ExitCode"]) == ("FAILED", "2:0")
    slurm.wait_for(jobs["grpo"], ("CANCELLED",), LIMIT_S)
    _, said = submit("status", str(root))
    assert "failed (exit 2)" in said and "cancelled before it started" in said
    assert "another process" in (folder(root / "slurm", "pretrain") / "latest.txt").read_text()


def test_a_job_that_is_queued_again_resumes_and_a_second_one_is_refused(
    slurm: Cluster, submit: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    """SIGUSR1 in GRPO: saved, queued again, resumed. scancel: stopped, and the same submission goes on to the end."""
    root = tmp_path / "runs"
    words = [*overrides(root, grpo_steps=80, evaluation=False), "launcher.job_per_stage=false"]

    def steps() -> int:
        found = list(root.glob("grpo-*"))
        return (last_step(found[0]) or 0) if found else 0

    code, said = submit(*words)
    assert code == 0, said
    job = jobs_of(said)["grpo"]
    until(lambda: steps() >= 2, "step of GRPO")
    slurm.call("scancel", "--signal=USR1", job)
    notes = folder(root / "slurm", "grpo") / "attempts.txt"
    until(lambda: "requeued" in notes.read_text(), "requeue")
    saved = steps()
    assert saved < 80
    until(lambda: " requeued (" in submit("status", str(root))[1], "queued job in the table")
    row = submit("status", str(root))[1].splitlines()[1].split()
    assert row[1:3] == [job, "requeued"] and row[4:6] == ["1", f"{saved}/80"] and float(row[6]) >= 0, row
    code, said = submit(*words)
    assert code == 2 and f"job {job} (" in said and "makes it already" in said, said
    until(lambda: " 2 " in notes.read_text() and steps() > saved, "step of the second attempt")
    slurm.call("scancel", job)
    assert slurm.wait_for(job, ENDED, LIMIT_S)["JobState"] == "CANCELLED"
    until(lambda: not slurm.call("squeue", "-h").stdout.strip(), "end of the job")
    log = (notes.parent / f"log-{job}-2.txt").read_text()
    assert "grpo: resuming" in log and f"{saved}/80" in log, log
    assert "stopped (exit " in submit("status", str(root))[1]
    code, said = submit(*words)
    again = jobs_of(said)["grpo"]
    assert code == 0 and again != job
    assert slurm.wait_for(again, ENDED, LIMIT_S)["JobState"] == "COMPLETED"
    assert store.is_complete(folder(root, "grpo"))
    assert "complete, nothing to submit" in submit(*words)[1]


# Rank 0 is refused its learning rate while rank 1 imports torch or waits to meet it.
ONE_FAILS = """
import os
import sys
from r1_lightning.__main__ import main
sys.exit(main() if os.environ["SLURM_PROCID"] != "0" else (sys.argv.append("optim.lr=-1"), main())[1])
"""


def test_one_rank_that_fails_ends_the_job_with_its_code(
    slurm: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """srun ends rank 1 by SIGTERM, and tells its answer, 75, which is higher than the 2 of rank 0: not queued again for that."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    code = tmp_path / "code"
    code.mkdir()
    (code / PROGRAM).write_text(ONE_FAILS)
    words = ("train", *small_pretrain(tmp_path / "runs", "trainer=ddp", "trainer.accelerator=cpu"))
    attempts = tmp_path / "job" / "attempts.txt"
    job = Job("r1-one-fails", settings(), (Task(attempts.parent, words),), code, tmp_path, sys.executable, 2)
    attempts.parent.mkdir()
    script = tmp_path / "job.sh"
    script.write_text(render(job))
    number = slurm.call("sbatch", "--parsable", str(script)).stdout.strip()
    found = slurm.wait_for(number, ENDED, LIMIT_S)
    log = (attempts.parent / "latest.txt").read_text()
    assert (found["JobState"], found["ExitCode"]) == ("FAILED", "2:0"), log
    assert [line.split()[3] for line in attempts.read_text().splitlines()] == ["started", "ended"]
    assert log.count("error: optim.lr=-1 is not allowed") == 1 and "interrupted" not in log
