"""What is asked of SLURM: submit a script, and which jobs are alive. Its own programs are called, without a shell.

`squeue` knows what waits or runs. What has ended it forgets after minutes, and `sacct` exists only where a site keeps accounts, so
the end of a job is read from the files that its script leaves (`submissions`).
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from r1_lightning.types.errors import InvalidInput

TIMEOUT_S = 120  # a busy controller answers late
GONE = ("Invalid job id", "Invalid job array task")  # squeue's words on a job that it has forgotten


@dataclass(frozen=True)
class Alive:
    """A job that waits or runs: SLURM's word on its state (PENDING, RUNNING, ...), and why it waits."""

    state: str
    reason: str


def submit(script: Path, after: Sequence[str]) -> str:
    """Submit `script`, to start once the jobs `after` have succeeded; returns the job's number. `InvalidInput` if SLURM refuses."""
    # kill-on-invalid-dep: if a job before it fails, this one is cancelled and does not wait for ever.
    dependency = [f"--dependency=afterok:{':'.join(after)}", "--kill-on-invalid-dep=yes"] if after else []
    said = _call(["sbatch", "--parsable", *dependency, str(script)])
    return said.strip().partition(";")[0]  # NUMBER, or NUMBER;CLUSTER


def command_of(script: Path, after: Sequence[str]) -> list[str]:
    """Return the words of `submit`, for a person to read."""
    return ["sbatch", *([f"--dependency=afterok:{':'.join(after)}"] if after else []), str(script)]


def alive(jobs: Iterable[str]) -> dict[str, Alive]:
    """Return those of `jobs` ("12", or "12_0" in an array) that wait or run. `InvalidInput` where there is no SLURM."""
    numbers = sorted({job.partition("_")[0] for job in jobs})
    found: dict[str, Alive] = {}
    for start in range(0, len(numbers), 100):  # a command line is not endless
        found |= _alive(numbers[start : start + 100])
    return found


def _alive(numbers: Sequence[str]) -> dict[str, Alive]:
    try:
        said = _call(["squeue", "--noheader", "--array", "--format=%i|%T|%r", f"--jobs={','.join(numbers)}"])
    except InvalidInput as error:
        if not any(words in str(error) for words in GONE):
            raise
        if len(numbers) == 1:
            return {}
        return {job: state for number in numbers for job, state in _alive([number]).items()}
    rows = [line.split("|") for line in said.splitlines()]
    return {row[0].strip(): Alive(row[1], row[2]) for row in rows if len(row) == 3}


def _call(words: Sequence[str]) -> str:
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT_S)
    except FileNotFoundError as error:
        raise InvalidInput(f"{words[0]} is not here: run this where SLURM's commands are (a login node)") from error
    except subprocess.TimeoutExpired as error:
        raise InvalidInput(f"{words[0]} did not answer within {TIMEOUT_S} s") from error
    if done.returncode != 0:
        detail = " ".join((done.stderr or done.stdout).split())
        raise InvalidInput(f"{words[0]} refuses ({detail})")
    return done.stdout
