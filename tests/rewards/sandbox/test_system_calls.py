"""The table of system calls: no attack on shared resources of the machine gets more than allowed, or leaves anything behind."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from r1_lightning.rewards.code_reward import CodeReward
from r1_lightning.rewards.sandbox.sandbox import Limits, Program, Sandbox
from r1_lightning.rewards.sandbox.system_calls import CHECKED, DENIED, FIRST_UNKNOWN
from tests.rewards.sandbox.hostile_programs import TESTS_OF
from tests.rewards.sandbox.hostile_takers import COUNTS, TAKERS, Taker, armed, measuring
from tests.rewards.test_code_reward import all_gone, problem, written

NOT_DENIED = {"zombies": "ECHILD", "the_input_grown": "EINVAL", "the_input_written": "EBADF", "huge_pages": "EPERM"}


def taken_on_the_machine() -> tuple[int, int]:
    """Slots of asynchronous I/O, and mounts that this process sees."""
    slots = Path("/proc/sys/fs/aio-nr")
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    return int(slots.read_text()) if slots.exists() else 0, len(mounts)


def test_every_number_stands_once_and_below_the_unknown() -> None:
    for column in (0, 1):
        numbers = [pair[column] for pair in DENIED.values()] + [pair[column] for pair, _ in CHECKED.values()]
        known = [number for number in numbers if number is not None]
        assert len(set(known)) == len(known) and max(known) < FIRST_UNKNOWN


@pytest.mark.usefixtures("isolated")
def test_nobody_gets_more_than_it_may() -> None:
    before = taken_on_the_machine()
    found = {}
    with Sandbox(Program("stdin", measuring()), Limits(cpu_s=10)) as box:
        for taker in TAKERS:
            outcome = box.run(taker.name)
            assert outcome.ended == "", f"{taker.name}: {outcome}"
            found[taker.name] = outcome.stdout.strip()
            slots, mounts = taken_on_the_machine()
            assert slots - before[0] < 1_000 and mounts == before[1]
    for taker in TAKERS:
        got = found[taker.name]
        if taker.most or taker.name in COUNTS:
            assert 0 <= int(got) <= taker.most, f"{taker.name} got {got}"
        else:
            assert got == NOT_DENIED.get(taker.name, "EPERM"), f"{taker.name} got {got}"
    # The counters count: of what is allowed they find nearly all.
    for name, least in {"open_files": 40, "filled_pipes": 10**6, "files_in_tmp": 900, "megabytes_in_tmp": 15}.items():
        assert int(found[name]) >= least
    assert all_gone()


@pytest.mark.usefixtures("isolated")
def test_they_score_nothing_and_what_they_may_get_would_score() -> None:
    assert len({taker.name for taker in TAKERS}) == len(TAKERS) >= 60
    reward, task = CodeReward(), problem(TESTS_OF["stdin"])
    verdicts = reward.judge_many([(task, written(armed(taker).source)) for taker in TAKERS])
    assert [taker.name for taker, verdict in zip(TAKERS, verdicts, strict=True) if verdict.score] == []
    granted = [Taker("one", "1"), Taker("files", "many(library)", 10), Taker("bytes", "filled(os.pipe()[1])", 4096)]
    assert [reward(task, written(armed(taker).source)).score for taker in granted] == [1.0, 1.0, 1.0]
    assert all_gone()


@pytest.mark.usefixtures("isolated")
def test_honest_use_of_what_is_checked_by_its_arguments() -> None:
    source = (
        "import asyncio, fcntl, mmap, os, queue, socket, threading\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "async def waits():\n    await asyncio.sleep(0)\n    return await asyncio.to_thread(sum, [1, 2])\n"
        "a, b = socket.socketpair()\na.sendall(b'xy')\n"
        "lines = queue.Queue()\n"
        "thread = threading.Thread(target=lambda: lines.put(3))\nthread.start()\nthread.join()\n"
        "event = threading.Event()\nthreading.Timer(0.01, event.set).start()\n"
        "read, write = os.pipe()\nos.set_inheritable(write, True)\n"
        "copy = fcntl.fcntl(write, fcntl.F_DUPFD_CLOEXEC, 20)\nos.write(copy, b'z')\nos.closerange(40, 50)\n"
        "memory = mmap.mmap(-1, 8192)\nmemory.madvise(mmap.MADV_DONTNEED)\n"
        "with ThreadPoolExecutor(3) as pool:\n    total = sum(pool.map(abs, range(-4, 4)))\n"
        "print(asyncio.run(waits()), b.recv(9), lines.get(), event.wait(5), os.read(read, 9), open(0).isatty(), total)"
    )
    with Sandbox(Program("stdin", source)) as box:
        outcome = box.run("")
    assert re.sub(r"\s+", " ", outcome.stdout) == "3 b'xy' 3 True b'z' False 16 ", outcome
