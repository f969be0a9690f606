"""`scripts/train.py` as several processes: by our own starter, by torchrun, or as tasks of a SLURM step that is only pretended.

Every command has a hard limit, after which its whole process tree is killed and the test fails; `kill_all` kills what is left.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import lightning as L

from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.processes import processes_now
from r1_lightning.types.text import Completion, Problem, Verdict
from tests.support.commands import ROOT, SMALL_MODEL, Finished, environment

SCRIPT = str(ROOT / "scripts" / "train.py")
ALIVE: list[subprocess.Popen[str]] = []  # what was started here, ended or not
LIMIT_S = 300.0  # a command takes 10 to 20 s, most of it imports, and many times that on a busy machine
LAUNCHER = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID")


class StopAt(L.Callback):
    """Ends training after optimizer step `step`, with everything saved, as a person's early stopping might."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
        trainer.should_stop = trainer.global_step >= self.step


class FailIn(L.Callback):
    """Refuses the input in rank `rank` alone, after the first optimizer step."""

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
        if trainer.global_rank == self.rank:
            raise InvalidInput(f"the disk of rank {self.rank} is full")


@dataclass
class Refuses:
    """A reward of 0, which refuses what rank 1 has to judge after its first `before` completions."""

    before: int
    name: str = "refuses"
    judged: int = 0

    def __call__(self, problem: Problem, completion: Completion) -> Verdict:
        self.judged += 1
        if self.judged > self.before and processes_now().rank == 1:
            raise InvalidInput("reward.rewards.refuses: this completion has no verdict")
        return Verdict(0.0, "never right")


def stop_at(step: int) -> str:
    return f"+callbacks.stop={{_target_: tests.support.launched.StopAt, step: {step}}}"


def pretrain(root: Path, steps: int = 4, *more: str) -> list[str]:
    """The arguments of a very small pre-training below `root`; a checkpoint every two steps."""
    own = ["stage=pretrain", f"stage.max_steps={steps}", "data.rows_per_batch=5", "optim.warmup_steps=1"]
    return [*own, *(word for word in SMALL_MODEL if "self_check" not in word), f"paths.root={root}", *more]


def started(arguments: Sequence[str], count: int, trainer: str = "ddp") -> subprocess.Popen[str]:
    """The command for `count` processes, started; its output in pipes."""
    own = [f"trainer={trainer}", "trainer.accelerator=cpu", f"trainer.devices={count}"]
    return _popen([sys.executable, SCRIPT, *arguments, *own])


def by_starter(arguments: Sequence[str], count: int, trainer: str = "ddp") -> Finished:
    return ended(started(arguments, count, trainer))


def by_torchrun(arguments: Sequence[str], count: int) -> Finished:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(count)]
    return ended(_popen([*torchrun, "--master-port", str(_free_port()), SCRIPT, *arguments, "trainer.accelerator=cpu"]))


def by_srun(arguments: Sequence[Sequence[str]]) -> list[Finished]:
    """Tasks of one pretended step, task n with `arguments[n]`."""
    step = step_of(len(arguments))
    tasks = [
        _popen([sys.executable, SCRIPT, *own, "trainer=ddp", "trainer.accelerator=cpu"], **step, **task_of(number))
        for number, own in enumerate(arguments)
    ]
    return [ended(task) for task in tasks]


def step_of(count: int) -> dict[str, str]:
    """What SLURM tells the `count` tasks of a step."""
    step = {"SLURM_STEP_ID": "0", "SLURM_JOB_ID": "7", "SLURM_NTASKS": str(count)}
    step |= {"SLURM_STEP_TASKS_PER_NODE": str(count), "SLURM_STEP_NODELIST": "localhost"}
    return step | {"MASTER_PORT": str(_free_port())}


def task_of(number: int) -> dict[str, str]:
    """What SLURM tells task `number` alone."""
    return {"SLURM_PROCID": str(number), "SLURM_LOCALID": str(number)}


def ended(process: subprocess.Popen[str], limit_s: float = LIMIT_S) -> Finished:
    """Wait for the command; kill it and all that it started at the limit."""
    try:
        out, err = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        out, err = killed(process)
        raise AssertionError(f"not over after {limit_s:g} s:\n{out}\n{err}") from None
    return Finished(process.returncode, out, err)


def killed(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Kill the command and all that it started; returns what it had printed."""
    for pid in [*below(process.pid), process.pid]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return process.communicate()


def kill_all() -> None:
    """Kill every command of this module that is still there."""
    while ALIVE:
        process = ALIVE.pop()
        if process.poll() is None:
            killed(process)


def ranks_of(process: subprocess.Popen[str]) -> list[int]:
    """The process ids of the ranks that the command has started, in order of rank."""
    return children_of(process.pid)


def children_of(pid: int) -> list[int]:
    """The process ids of what the main thread of `pid` has started and not yet waited for, the oldest first."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def below(pid: int) -> list[int]:
    """The process ids of all that `pid` has started, and of all that they have."""
    try:
        children = children_of(pid)
    except OSError:  # it has just ended
        return []
    return [*children, *(each for child in children for each in below(child))]


def wait_for_checkpoint(root: Path, process: subprocess.Popen[str], limit_s: float = LIMIT_S) -> None:
    """Wait until the run below `root` has written its first checkpoint."""
    end_s = time.monotonic() + limit_s
    while not list(root.glob("*/checkpoints/last.ckpt")):
        assert time.monotonic() < end_s and process.poll() is None, killed(process)
        time.sleep(0.05)


def _popen(command: Sequence[str], **more: str) -> subprocess.Popen[str]:
    own = {name: value for name, value in environment().items() if name not in LAUNCHER}
    pipe = subprocess.PIPE
    ALIVE.append(
        subprocess.Popen(
            command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True, env={**own, **more}, start_new_session=True
        )
    )
    return ALIVE[-1]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
