"""What we ask of SLURM's programs, and what we make of their answers; small programs stand in their place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from r1_lightning.run.commands import slurm
from r1_lightning.run.commands.slurm import Alive
from r1_lightning.types.errors import InvalidInput


def program(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def test_a_script_is_submitted_after_others(programs: Path, tmp_path: Path) -> None:
    program(programs, "sbatch", f'printf "%s|" "$@" >{tmp_path}/told; echo "12;cluster"')
    assert slurm.submit(Path("/a b/job.sh"), []) == "12"
    assert (tmp_path / "told").read_text() == "--parsable|/a b/job.sh|"
    slurm.submit(Path("job.sh"), ["7", "8"])
    told = (tmp_path / "told").read_text().split("|")
    assert told[1:3] == ["--dependency=afterok:7:8", "--kill-on-invalid-dep=yes"]


def test_sbatch_s_refusal_is_one_line(programs: Path) -> None:
    program(programs, "sbatch", "echo 'error: invalid partition' >&2; echo 'more' >&2; exit 1")
    with pytest.raises(InvalidInput, match=r"^sbatch refuses \(error: invalid partition more\)$"):
        slurm.submit(Path("job.sh"), [])


def test_without_slurm_the_line_says_where_to_go(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InvalidInput, match="squeue is not here"):
        slurm.alive(["3"])
    assert slurm.alive([]) == {}


def test_jobs_that_wait_or_run_are_alive(programs: Path, tmp_path: Path) -> None:
    text = "1|PENDING|Dependency\\n2_0|RUNNING|None\\n2_1|PENDING|Resources\\n"
    program(programs, "squeue", f'printf "%s|" "$@" >{tmp_path}/told; printf "{text}"')
    expected = {
        "1": Alive("PENDING", "Dependency"),
        "2_0": Alive("RUNNING", "None"),
        "2_1": Alive("PENDING", "Resources"),
    }
    assert slurm.alive(["1", "2_0", "2_1", "3"]) == expected
    assert (tmp_path / "told").read_text().split("|")[
        -2
    ] == "--jobs=1,2,3"  # an array's jobs are asked for by its number


def test_a_job_that_slurm_forgot_does_not_hide_the_others(programs: Path) -> None:
    """squeue refuses a list of which it knows nothing, and one with a number that it has forgotten."""
    refuse = "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1"
    program(programs, "squeue", f'case "$*" in *jobs=2) echo "2|RUNNING|None" ;; *) {refuse} ;; esac')
    assert slurm.alive(["1", "2"]) == {"2": Alive("RUNNING", "None")}
    program(programs, "squeue", "echo 'Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(InvalidInput, match="Unable to contact"):
        slurm.alive(["1", "2"])
