"""Processes meet, compare what they are about to run, and say in one line when another is gone."""

from __future__ import annotations

import multiprocessing
import os
import socket
import time
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import distributed

from r1_lightning.run.build import meeting
from r1_lightning.run.build.meeting import compare, lost, met, state_of, timeout_s
from r1_lightning.run.config.place import ALONE, OURS, Place
from r1_lightning.run.config.speaking import Lost
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.processes import ONE, Processes
from tests.support.processes import in_processes

CONFIG = OmegaConf.create({"trainer": {"accelerator": "cpu", "timeout_s": 1}, "seed": 0, "paths": {"root": "here"}})


def test_one_process_meets_nobody() -> None:
    with met(ALONE, CONFIG) as processes:
        assert processes is ONE and not distributed.is_initialized()
    compare(ONE, CONFIG, "f")


def test_nobody_comes() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    begun_s = time.monotonic()
    with (
        pytest.raises(
            Lost, match=f"rank 0 of 2 did not meet the others at 127.0.0.1:{port} within trainer.timeout_s=1"
        ),
        met(Place(0, 2, 0, 2, "srun", "127.0.0.1", port), CONFIG),
    ):
        pass
    assert time.monotonic() - begun_s < 30 and not distributed.is_initialized()


def test_rank_0_listens_at_the_socket_that_it_was_given() -> None:
    """The starter's copy of the socket is closed, and rank 1 comes by the port: they add 1 and 2."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port, context = listening.getsockname()[1], multiprocessing.get_context("fork")
        came = context.Queue()
        given = os.dup(listening.fileno())
    ranks = [context.Process(target=_meet, args=(rank, port, given, came)) for rank in range(2)]
    for rank in ranks:
        rank.start()
    os.close(given)
    assert sorted(came.get(timeout=60) for _ in ranks) == [3, 3]
    for rank in ranks:
        rank.join(60)


def _meet(rank: int, port: int, listening: int, came: Any) -> None:
    place = Place(rank, 2, rank, 2, OURS, "127.0.0.1", port, listening if rank == 0 else None)
    config = OmegaConf.merge(CONFIG, {"trainer": {"timeout_s": 60}})
    with met(place, config) as processes:
        came.put(int(processes.sum(torch.tensor(rank + 1))))
        processes.barrier()


@pytest.mark.parametrize("part", ["configuration", "code", "packages", "data"])
def test_the_part_that_differs_is_named_in_every_process(part: str) -> None:
    found = in_processes(3, _compare, part)
    # Rank 2 differs, and all three raise the same line.
    assert len(set(found)) == 1 and found[0].startswith(f"{part} of rank 2 is not that of rank 0 (")


def _compare(processes: Processes, part: str) -> str:
    config, fingerprint = CONFIG.copy(), "f" * 64
    config.paths.root = f"rank {processes.rank}"  # folders may differ
    if processes.rank == 2:
        if part == "configuration":
            config.seed = 1
        if part == "data":
            fingerprint = "e" * 64
        if part == "code":
            meeting._code = lambda: "other"
        if part == "packages":
            meeting.lineage.environment = lambda: {"torch": "0.0"}
    try:
        compare(processes, config, fingerprint)
    except InvalidInput as error:
        return str(error)
    return "nothing differs"


def test_equal_processes_go_on() -> None:
    assert in_processes(2, _compare, "nothing") == ["nothing differs"] * 2


def test_the_state_covers_the_configuration_but_for_folders_and_display() -> None:
    state = state_of(CONFIG, "f")
    for key, value in (("paths.root", "there"), ("logger", {"csv": True})):
        changed = CONFIG.copy()
        OmegaConf.update(changed, key, value, force_add=True)
        assert state_of(changed, "f") == state
    assert len(state["code"]) == len(state["configuration"]) == 64 and state["data"] == "f"


def _leave_early(processes: Processes) -> Any:
    """Rank 1 goes without a word; what rank 0 hears when it next wants to add something up."""
    if processes.rank == 1:
        os._exit(0)
    try:
        processes.barrier()
    except Exception as error:
        return lost(error)
    return "nothing"


def test_a_lost_process_is_one_line() -> None:
    found = _alone_of_two()
    assert found.startswith("another process of this run has ended; this one ends, too (") and "\n" not in found


def _alone_of_two() -> str:
    """The result of rank 0 of `_leave_early`; the harness wants one of every rank, so rank 1 is let go in another way."""
    import multiprocessing
    import tempfile
    from datetime import timedelta

    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        mine, yours = context.Pipe()

        def rank(number: int) -> None:
            from r1_lightning.types.processes import ProcessGroup

            distributed.init_process_group(
                "gloo", init_method=f"file://{folder}/f", rank=number, world_size=2, timeout=timedelta(seconds=20)
            )
            yours.send(_leave_early(ProcessGroup.of_group()))
            os._exit(0)

        jobs = [context.Process(target=rank, args=(number,)) for number in range(2)]
        for job in jobs:
            job.start()
        assert mine.poll(30)
        for job in jobs:
            job.join(10)
            job.kill()
        return str(mine.recv())


def test_silence_is_told_apart_from_an_end() -> None:
    for text in (
        "[gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 2000ms for recv operation",
        "Application timeout caused pair closure",
    ):
        silent = lost(RuntimeError(text))
        assert silent == f"another process did not answer within trainer.timeout_s; all end ({text})"
    assert lost(RuntimeError("shapes do not fit")) is None and lost(ValueError("gloo")) is None


def test_the_limit() -> None:
    assert timeout_s(CONFIG) == 1 and timeout_s(OmegaConf.create({})) == 1800
