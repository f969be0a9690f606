"""This process's place among the processes of a run: read from what `torchrun`, SLURM's `srun` or our own starter set.

    torchrun, our starter (`starting`)   RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT
    srun                                 SLURM_PROCID, SLURM_NTASKS, SLURM_LOCALID, SLURM_STEP_ID, SLURM_JOB_ID, SLURM_STEP_NODELIST

Tasks of `srun` may also be runs of their own (a seed each, or a shard each: `stage.shard=$SLURM_PROCID`). So SLURM's variables
count only if the configuration asks for several processes: `trainer=ddp`, `trainer.devices` or `trainer.num_nodes` above 1. Whoever
starts `torchrun` wants one run. In a batch script without `srun` SLURM sets its variables too, but no step: they are not read.

Imports no torch: a command looks here before it knows whether it works itself or starts those that do.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from r1_lightning.types.errors import InvalidInput, require

STARTED = "R1_STARTED_BY"  # set by `starting` for its processes: the number of the pipe that closes with it
LISTENING = "R1_LISTENING"  # set by it for rank 0: the number of the socket that listens at the port
OURS = "trainer.devices"  # what made our starter start several
TORCHRUN = "TORCHELASTIC_RUN_ID"
FSDP = "fsdp"
STRATEGIES = ("ddp", FSDP)  # the values of `trainer.strategy` that are for several processes
TIMEOUT_S = 1800  # where the configuration names no `trainer.timeout_s`
# A job's port on its first node follows from its number, so that jobs that share a node differ.
FIRST_PORT, PORTS = 15_000, 10_000


@dataclass(frozen=True)
class Place:
    """`rank` of `count` processes, and `local_rank` of `local_count` on this machine; `starter` says who started them.

    They meet at `address`:`port`, which is in the process of rank 0; `listening` is the descriptor of a socket there that it was
    given. A run of one process has no starter and meets nobody.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    local_count: int = 1
    starter: str = ""
    address: str = "127.0.0.1"
    port: int = 0
    listening: int | None = None

    @property
    def is_main(self) -> bool:
        """True in the one process that writes files and prints."""
        return self.rank == 0


ALONE = Place()


def place_of(trainer: Mapping[str, Any], environment: Mapping[str, str] = os.environ) -> Place:
    """Return this process's place in a run with the settings `trainer`; `ALONE` if nobody has started others beside it.

    Raises `InvalidInput` if the variables contradict each other or the settings.
    """
    place = _found(trainer, environment)
    if place.count > 1:
        _compare(place, trainer)
    return place


def wanted(trainer: Mapping[str, Any]) -> int:
    """Return the number of processes on this machine for which `trainer` asks; 0 for as many as there are ("auto")."""
    devices = trainer.get("devices", 1)
    if isinstance(devices, (list, tuple)) or hasattr(devices, "_content"):  # a list of Hydra is none of Python's
        return len(devices)
    return devices if isinstance(devices, int) else 0


def timeout_s(trainer: Mapping[str, Any]) -> int:
    """Return the seconds after which a process that waits for another one gives up."""
    return int(trainer.get("timeout_s") or TIMEOUT_S)


def asks_for_several(trainer: Mapping[str, Any]) -> bool:
    """True if the settings are for more than one process, however many there turn out to be."""
    return trainer.get("strategy") in STRATEGIES or wanted(trainer) > 1 or trainer.get("num_nodes", 1) > 1


def _found(trainer: Mapping[str, Any], environment: Mapping[str, str]) -> Place:
    if STARTED in environment or TORCHRUN in environment:
        return _of_torchrun(environment, OURS if STARTED in environment else "torchrun")
    if "SLURM_STEP_ID" in environment and asks_for_several(trainer):
        return _of_slurm(environment)
    return ALONE


def _of_torchrun(environment: Mapping[str, str], starter: str) -> Place:
    count = _number(environment, "WORLD_SIZE", 1)
    return Place(
        rank=_number(environment, "RANK", 0, count - 1),
        count=count,
        local_rank=_number(environment, "LOCAL_RANK", 0),
        local_count=_number(environment, "LOCAL_WORLD_SIZE", 1, count),
        starter=starter,
        address=environment.get("MASTER_ADDR", "127.0.0.1"),
        port=_number(environment, "MASTER_PORT", 1, 65_535),
        listening=_number(environment, LISTENING, 0) if starter == OURS and LISTENING in environment else None,
    )


def _of_slurm(environment: Mapping[str, str]) -> Place:
    count = _number(environment, "SLURM_NTASKS", 1)
    if count == 1:
        return ALONE
    tasks = environment.get("SLURM_STEP_TASKS_PER_NODE", environment.get("SLURM_TASKS_PER_NODE", str(count)))
    job = _number(environment, "SLURM_JOB_ID", 0) if "SLURM_JOB_ID" in environment else 0
    step = environment["SLURM_STEP_ID"]
    number = job * 7 + (int(step) if step.isdecimal() else 0)  # two steps of one job differ, too
    return Place(
        rank=_number(environment, "SLURM_PROCID", 0, count - 1),
        count=count,
        local_rank=_number(environment, "SLURM_LOCALID", 0),
        local_count=int(re.match(r"\d+", tasks)[0]) if re.match(r"\d+", tasks) else 1,  # type: ignore[index]
        starter="srun",
        address=environment.get("MASTER_ADDR") or first_host(environment),
        port=_number(environment, "MASTER_PORT", 1, 65_535)
        if "MASTER_PORT" in environment
        else FIRST_PORT + number % PORTS,
    )


def first_host(environment: Mapping[str, str]) -> str:
    """Return the first host of SLURM's list: "node07" of "node[07-09,12]", "a" of "a,b"; this machine without a list."""
    hosts = environment.get("SLURM_STEP_NODELIST", environment.get("SLURM_NODELIST", "127.0.0.1"))
    found = re.match(r"([^\[,]*)(?:\[(\w+)[^\]]*\])?", hosts)
    assert found is not None, "the pattern matches every text"
    return found[1] + (found[2] or "")


def _number(environment: Mapping[str, str], name: str, minimum: int, maximum: int | None = None) -> int:
    text = environment.get(name, "")
    allowed = f"the environment's variable must be a whole number of at least {minimum}" + (
        "" if maximum is None else f" and at most {maximum}"
    )
    if not (text.isdecimal() and len(text) < 12 and minimum <= int(text) and (maximum is None or int(text) <= maximum)):
        raise InvalidInput(f"{name}={text!r} is not allowed: {allowed}")
    return int(text)


def _compare(place: Place, trainer: Mapping[str, Any]) -> None:
    """Raise `InvalidInput` if the settings ask for another number of processes than were started."""
    devices = wanted(trainer)
    told = f"{place.starter} started {place.count} processes, {place.local_count} of them on this machine"
    if devices > 1:  # one is the value of a run that says nothing about it
        require(devices == place.local_count, "trainer.devices", devices, f"{told}; leave it out")
    nodes, started = trainer.get("num_nodes", 1), -(-place.count // place.local_count)
    if nodes > 1:
        require(nodes == started, "trainer.num_nodes", nodes, f"{told}; leave it out")
