"""Submits a stage to SLURM, with what it needs, as jobs: the words of `r1 train`, and `launcher.*` for the cluster.

    r1 submit stage=grpo launcher.partition=gpu launcher.gpus_per_node=1 launcher.time=04:00:00
    r1 submit -m stage=grpo seed=0,1,2 ...      an array, one job for each run, as `r1 train -m` makes them in turn
    r1 submit ... --config-dir FOLDER           option files of your own, copied as they are now
    r1 submit ... fresh=true                    made anew by the first attempt; an attempt that is queued again resumes that
    r1 submit ... dry_run=true                  prints the scripts, and neither writes nor submits
    r1 submit status [FOLDER]                   what is queued, running, requeued, failed, complete

Each missing stage of the graph is a job of its own that waits for those of its inputs (`afterok`); `launcher.job_per_stage=false`
makes all of them in one. The same command again resumes what has stopped, and is refused while a job is alive that makes it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from r1_lightning.run.config.exit_codes import BAD_INPUT
from r1_lightning.run.config.machine import run_as_command
from r1_lightning.run.config.program import usage

ARGUMENTS = (
    "[-m] stage=NAME [KEY=VALUE ...] [launcher.KEY=VALUE ...] [--config-dir FOLDER] [dry_run=true], or status [FOLDER]"
)


def main() -> int:
    """The command line of `r1 submit`; returns the exit code."""
    return run_as_command(_answer)


def _answer() -> int:
    arguments = sys.argv[1:]
    if not arguments or {"-h", "--help"} & set(arguments):
        print(f"{(__doc__ or '').strip()}\n\n{usage('submit', ARGUMENTS)}")
        return 0 if arguments else BAD_INPUT
    print(submit(arguments))
    return 0


def submit(arguments: Sequence[str]) -> str:
    """Do what the command line asks; returns what to print. Raises `InvalidInput`."""
    if arguments[0] == "status":
        from r1_lightning.run.commands.submit_status import status

        return status(arguments[1:])  # at once: no torch
    from r1_lightning.run.commands.submit_jobs import submit_points
    from r1_lightning.run.commands.submit_points import is_dry, points_of

    return submit_points(points_of(arguments), is_dry(arguments))
