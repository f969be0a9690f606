"""The text of a batch script: what SLURM runs on the first node of a job, made of a configuration alone.

The script does five things. It opens a log per attempt in the job's folder; sets up the surroundings (modules, variables); checks
that every node sees the folder; starts the run by `srun`, one process per task; and, if the run ends with the exit code that says
"saved, run me again", queues the same job again. Any other exit code of the run is the job's.

The run's code is the first that one of its tasks noted (`exit_codes.note`) and that does not say so; else `srun`'s, which is the
highest: when a task fails, srun ends the others by SIGTERM, and they may answer that they have saved.

All that a user wrote is quoted for the shell (`shlex.quote`), `launcher.setup` excepted, and nothing of it stands in a comment.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from r1_lightning.run.config.exit_codes import AGAIN, BAD_INPUT, NOTED
from r1_lightning.run.config.place import STARTED
from r1_lightning.run.config.slurm import FRESH_NOTE, Slurm
from r1_lightning.types.errors import require

# In a job's folder: what became of each attempt; a link to the newest log; the name of the folder that `fresh=true` began.
ATTEMPTS, LATEST, FRESH = "attempts.txt", "latest.txt", "fresh.txt"
PROGRAM = "r1.py"  # in the folder of the copied code
# A shell that once ran torchrun or another job would hand these to ours.
FOREIGN = (
    *("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
    *("TORCHELASTIC_RUN_ID", STARTED),
)
SEEN_WITHIN_S = 30  # a network file system may show a new file late

BODY = r"""
job=${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}
attempt=$((${SLURM_RESTART_COUNT:-0} + 1))
log=log-$job-$attempt.txt
mkdir -p "$folder" && exec >>"$folder/$log" 2>&1 || exit @BAD_INPUT@
ln -sfn "$log" "$folder/@LATEST@"
note() { printf '%s %s %s %s\n' "$job" "$attempt" "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$*" >>"$folder/@ATTEMPTS@"; }
finish() { note ended "$1"; exit "$1"; }
leave() { # with the code of a step: to the end of the queue, or to the end
    case $1 in @AGAIN@) again=1 ;; *) again= ;; esac
    if [ "$again" ] && [ -z "$cancelled" ] && [ "$attempt" -le @MAX_REQUEUES@ ]; then
        note requeued
        echo "job $job is saved and queued again"
        scontrol requeue "$SLURM_JOB_ID" && exit "$1"
        echo "error: scontrol could not queue job $job again; the same submission resumes it" >&2
    fi
    finish "$1"
}
cancelled=
trap 'cancelled=1' TERM # scancel and SLURM's own preemption: the run hears it too, and this shell waits for its exit code
note started "$SLURM_JOB_NODELIST"
echo "job $job, attempt $attempt on $SLURM_JOB_NODELIST"

@SETUP@
# Every node has to see this folder: a run whose paths.root is a local disk would lose what it saves.
seen=$folder/seen-$job-$attempt
echo "$job" >"$seen" || finish @BAD_INPUT@
srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 bash -c '
    for ((second = 0; second < @SEEN_WITHIN_S@; second++)); do
        [ -s "$1" ] && touch "$1-$SLURM_NODEID" && exit 0
        sleep 1
    done
    echo "error: node $SLURMD_NODENAME does not see $1: paths.root must lie on a file system that all nodes share" >&2
    exit 1' check "$seen"
code=$?
rm -f "$seen"*
case $code in 0) ;; @AGAIN@) leave "$code" ;; *) finish @BAD_INPUT@ ;; esac

export @NOTED@=$folder/codes-$job-$attempt.txt
rm -f "$@NOTED@"
srun @SRUN@ "${words[@]}"
code=$?
for noted in $([ "$code" = 0 ] || cat "$@NOTED@" 2>/dev/null); do
    case $noted in 0 | @AGAIN@ | *[!0-9]*) ;; *) code=$noted && break ;; esac
done
rm -f "$@NOTED@"
leave "$code"
"""


@dataclass(frozen=True)
class Task:
    """One run: the folder of its logs, and the arguments of `r1` that make it."""

    folder: Path
    words: tuple[str, ...]


@dataclass(frozen=True)
class Job:
    """One call of `sbatch`; several tasks are an array. `code` is the copied code, `start` where the user stood.

    A job that is `fresh` makes its runs anew in the first attempt, and resumes them in the others.
    """

    name: str
    slurm: Slurm
    tasks: tuple[Task, ...]
    code: Path
    start: Path
    python: str
    processes_per_node: int = 1
    fresh: bool = False


def render(job: Job) -> str:
    """Return the batch script of `job`. Raises `InvalidInput` for a folder whose name SLURM cannot take."""
    first = job.tasks[0].folder
    for field, folder in (("paths.root", first), ("the working directory", job.start)):
        can = str(folder).isprintable() and "\\" not in str(folder)
        require(can, field, str(folder), "SLURM takes no folder with line breaks or backslashes in its name")
    values = {
        "BAD_INPUT": str(BAD_INPUT),
        "NOTED": NOTED,
        "AGAIN": " | ".join(map(str, AGAIN)),
        "MAX_REQUEUES": str(job.slurm.max_requeues),
        "LATEST": LATEST,
        "ATTEMPTS": ATTEMPTS,
        "SEEN_WITHIN_S": str(SEEN_WITHIN_S),
    }
    body = BODY
    for name, value in values.items():
        body = body.replace(f"@{name}@", value)
    # Last, each once: what a user wrote is not searched for names of ours.
    before, after_setup = body.split("@SETUP@\n")
    middle, after = after_setup.split("@SRUN@")
    text = "\n".join(["#!/usr/bin/env bash", *_options(job), "", *_choice(job)])
    return f"{text}{before}" + "".join(f"{line}\n" for line in _setup(job)) + f"{middle}{_srun(job)}{after}"


def _options(job: Job) -> Iterator[str]:
    slurm, is_array = job.slurm, len(job.tasks) > 1
    log = str(job.tasks[0].folder / "slurm").replace("%", "%%") + ("-%A_%a.txt" if is_array else "-%j.txt")
    limit = f"%{slurm.at_once}" if slurm.at_once is not None else ""
    options = {
        "job-name": job.name,
        "chdir": str(job.start),
        "output": log,  # SLURM's own messages; the run's are in its folder, a log per attempt
        "open-mode": "append",
        "array": f"0-{len(job.tasks) - 1}{limit}" if is_array else None,
        "account": slurm.account,
        "partition": slurm.partition,
        "qos": slurm.qos,
        "constraint": slurm.constraint,
        "time": slurm.time,
        "nodes": slurm.nodes,
        "ntasks-per-node": job.processes_per_node,
        "gpus-per-node": slurm.gpus_per_node or None,
        "gres": slurm.gres,
        "cpus-per-task": slurm.cpus_per_task,
        "mem": slurm.mem,
        "signal": f"USR1@{slurm.signal_s}"
        if slurm.signal_s
        else None,  # to the processes of the run, not to this shell
    }
    yield from (f"#SBATCH --{name}={shlex.quote(str(value))}" for name, value in options.items() if value is not None)
    yield "#SBATCH --requeue" if slurm.max_requeues else "#SBATCH --no-requeue"
    yield from (f"#SBATCH {shlex.quote(word)}" for word in slurm.sbatch_args)


def _choice(job: Job) -> Iterator[str]:
    """Yield the lines that set `folder` and `words`, by the number of the array's task if there are several."""
    if len(job.tasks) == 1:
        yield from _assignments(job.tasks[0], "")
        return
    yield "case $SLURM_ARRAY_TASK_ID in"
    for number, task in enumerate(job.tasks):
        yield f"{number})"
        yield from _assignments(task, "    ")
        yield "    ;;"
    yield "esac"


def _assignments(task: Task, indent: str) -> Iterator[str]:
    yield f"{indent}folder={shlex.quote(str(task.folder))}"
    yield f"{indent}words=("
    yield from (f"{indent}    {shlex.quote(word)}" for word in task.words)
    yield f"{indent})"


def _setup(job: Job) -> Iterator[str]:
    yield f"unset {' '.join(FOREIGN)}"
    if job.slurm.modules:
        yield f"module load {shlex.join(job.slurm.modules)}"
    yield from job.slurm.setup
    for name, value in job.slurm.env.items():
        yield f"export {name}={shlex.quote(str(value))}"
    if job.slurm.cpus_per_task is not None:
        yield f"export SRUN_CPUS_PER_TASK={job.slurm.cpus_per_task}"  # srun no longer takes it from the job
    if job.fresh:
        yield f'export {FRESH_NOTE}="$folder/{FRESH}"'
    yield f"export PYTHONPATH={shlex.quote(str(job.code))}${{PYTHONPATH:+:$PYTHONPATH}}"


def _srun(job: Job) -> str:
    words = ["--kill-on-bad-exit=1", *job.slurm.srun_args, *job.slurm.container, job.python, str(job.code / PROGRAM)]
    return shlex.join(words)
