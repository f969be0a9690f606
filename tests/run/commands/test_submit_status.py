"""The table of submitted runs, of SLURM's words and the files of each run."""

from __future__ import annotations

from pathlib import Path

import pytest

from r1_lightning.run.commands.slurm import Alive
from r1_lightning.run.commands.submissions import Attempts, folder_of
from r1_lightning.run.commands.submit_status import state_of, status
from r1_lightning.types.errors import InvalidInput
from tests.run.commands.test_slurm import program, programs  # noqa: F401 - a fixture
from tests.run.commands.test_submissions import noted


@pytest.mark.parametrize(
    ("alive", "attempts", "is_complete", "expected"),
    [
        (Alive("PENDING", "Dependency"), Attempts(), False, "queued (Dependency)"),
        (Alive("PENDING", "BeginTime"), Attempts(2, None, True), False, "requeued (BeginTime)"),
        (Alive("RUNNING", "None"), Attempts(1), False, "running"),
        (None, Attempts(1, 0), True, "complete"),
        (None, Attempts(), True, "complete"),
        (None, Attempts(1, 2), False, "failed (exit 2)"),
        (None, Attempts(3, 143), False, "stopped (exit 143), the same submission resumes it"),
        (None, Attempts(1, 0), False, "ended, its shard done"),
        (None, Attempts(1), False, "stopped without an exit code"),
        (None, Attempts(), False, "cancelled before it started"),
    ],
)
def test_state(alive: Alive | None, attempts: Attempts, is_complete: bool, expected: str) -> None:
    assert state_of(alive, attempts, is_complete) == expected


def test_the_table(tmp_path: Path, programs: Path) -> None:  # noqa: F811
    """A run of 300 steps whose last logged row is that of step 41 (the 42nd), and one that waits."""
    program(programs, "squeue", 'printf "7|RUNNING|None\\n8|PENDING|Priority\\n"')
    noted(tmp_path)
    (folder_of(tmp_path, "grpo-0123456789") / "attempts.txt").write_text("7 1 T started n1\n")
    run = tmp_path / "grpo-tiny-arithmetic-0123456789"
    (run / "tensorboard").mkdir(parents=True)
    (run / "config.yaml").write_text("stage: {max_steps: 300}\n")
    (run / "tensorboard" / "metrics.csv").write_text("step,rollout/reward_mean\n40,0.5\n41,0.8125\n")
    noted(tmp_path, "grpo-aaaaaaaaaa", "8")
    head, first, second = status([str(tmp_path)]).splitlines()
    assert head.split() == ["run", "job", "state", "attempt", "step", "reward"]
    assert first.split() == ["grpo-0123456789", "7", "running", "1", "42/300", "0.812"]
    assert second.split()[:4] == ["grpo-aaaaaaaaaa", "8", "queued", "(Priority)"]


def test_nothing_submitted_and_too_many_folders(tmp_path: Path) -> None:
    assert status([str(tmp_path)]) == f"nothing was submitted from {tmp_path}"
    with pytest.raises(InvalidInput, match=r"^status="):
        status(["a", "b"])
