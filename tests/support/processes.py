"""Runs a function in several gloo processes at once, each a fork of the test: torch is not imported again.

    def job(processes: Processes, number: int) -> int: ...
    assert in_processes(2, job, 7) == [result of rank 0, result of rank 1]

A process that raises ends the test with its traceback; one that hangs is killed at the time limit. Processes find each other by a
file, not by a port, and have one torch thread each, because a fork has no thread pool.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import tempfile
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed as dist

from r1_lightning.types.processes import ONE, ProcessGroup

POLL_S = 0.01
GRACE_S = 0.5  # for the others to fail as well, so that the first fault is told, not the one that it caused


def in_processes(count: int, function: Callable[..., Any], *arguments: Any, limit_s: float = 60.0) -> list[Any]:
    """Return `function(processes, *arguments)` of each of `count` processes, in order of rank.

    One process runs here, with `ONE`. Results travel pickled. Fails the test for a fault, and for a run longer than `limit_s`.
    """
    if count == 1:
        return [function(ONE, *arguments)]
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        jobs = [
            context.Process(target=_process, args=(rank, count, folder, limit_s, function, arguments))
            for rank in range(count)
        ]
        for job in jobs:
            job.start()
        _wait(jobs, limit_s)
        faults = sorted(folder.glob("fault-*"), key=lambda path: path.stat().st_mtime_ns)
        if faults:
            pytest.fail(f"process {faults[0].name[-1]}:\n{faults[0].read_text()}", pytrace=False)
        codes = [job.exitcode for job in jobs]
        if any(codes):
            pytest.fail(f"processes ended with {codes} within {limit_s:g} s", pytrace=False)
        return [pickle.loads((folder / f"result-{rank}").read_bytes()) for rank in range(count)]


def _wait(jobs: list[BaseProcess], limit_s: float) -> None:
    """Wait for all processes; kill what is left at the limit, or soon after one has failed."""
    end = time.monotonic() + limit_s
    while any(job.is_alive() for job in jobs) and time.monotonic() < end:
        if any(job.exitcode for job in jobs):
            end = min(end, time.monotonic() + GRACE_S)
        time.sleep(POLL_S)
    for job in jobs:
        if job.is_alive():
            job.kill()
        job.join()


def _process(
    rank: int, count: int, folder: Path, limit_s: float, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    """Be rank `rank`: meet the others, call `function`, and leave its result or its fault in `folder`."""
    torch.set_num_threads(1)
    # What torchrun tells its processes: Lightning then takes the group as it finds it and starts none itself.
    os.environ.update({"RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0"})
    os.environ.update({"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "GLOO_SOCKET_IFNAME": "lo"})
    os.environ.update({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500", "TORCHELASTIC_RUN_ID": "test"})
    try:
        limit = timedelta(seconds=limit_s)
        meeting = f"file://{folder / 'meeting'}"
        dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=count, timeout=limit)
        result = pickle.dumps(function(ProcessGroup.of_group(), *arguments))
        (folder / f"result-{rank}").write_bytes(result)
        dist.destroy_process_group()
    except BaseException:
        (folder / f"fault-{rank}").write_text(traceback.format_exc())
        os._exit(1)
    os._exit(0)  # not the test program's own last acts
