"""The worker as a process: what it says comes over, and it is ended when it hangs."""

from __future__ import annotations

import sys
import time

import pytest

from benchmarks.gpu.office import Broken, Listed, WorkerProcess

SCRIPT = """
import json, os, sys, time
answers = os.fdopen(int(sys.argv[1]), "w")
def answer(message):
    print(json.dumps(message), file=answers, flush=True)
parts = [{"name": "grpo", "work": "a", "estimate_s": 5.0}]
answer({"greeting": {"parts": parts, "hardware": {"workspace": os.environ["CUBLAS_WORKSPACE_CONFIG"]}, "cannot": ""}})
for line in sys.stdin:
    number = int(line)
    answer({"row": {"part": "grpo", "work": "a", "value": float(number)}})
    if number == 1:
        time.sleep(100)
    if number == 2:
        sys.exit(3)
    answer({"done": number, "usable": number != 3})
"""


@pytest.fixture
def worker():
    one = WorkerProcess([sys.executable, "-c", SCRIPT])
    yield one
    one.close()
    assert one.process.poll() is not None


def measured(worker, number, limit_s=20.0):
    rows = []
    try:
        worker.measure(number, limit_s, rows.append)
    except Broken as error:
        return rows, str(error)
    return rows, None


def test_greeting_and_rows_come_over_and_cublas_has_its_fixed_workspace(worker):
    greeting = worker.greeting(20.0)
    assert greeting.parts == [Listed("grpo", "a", 5.0)] and greeting.cannot == ""
    assert greeting.hardware == {"workspace": ":4096:8"}
    for number in (0, 7):
        (row,), broken = measured(worker, number)
        assert (row.part, row.work, row.value, broken) == ("grpo", "a", float(number), None)


def test_a_part_that_hangs_is_ended_at_its_limit_and_its_rows_are_kept(worker):
    worker.greeting(20.0)
    start_s = time.monotonic()
    (row,), broken = measured(worker, 1, limit_s=1.0)
    assert row.value == 1.0 and broken == "stopped after 1 s"
    assert time.monotonic() - start_s < 10 and worker.process.poll() is not None


def test_a_crash_is_told_with_its_exit_code(worker):
    worker.greeting(20.0)
    (row,), broken = measured(worker, 2)
    assert row.value == 2.0 and broken == "failed: the process that measures ended with code 3"
    assert measured(worker, 0)[0] == []  # it is gone


def test_an_unusable_device_ends_the_process_without_a_row_more(worker):
    worker.greeting(20.0)
    (row,), broken = measured(worker, 3)
    assert row.value == 3.0 and broken == "" and worker.process.poll() is not None


def test_a_worker_that_says_nothing_is_ended():
    silent = WorkerProcess([sys.executable, "-c", "import time; time.sleep(100)"])
    with pytest.raises(Broken, match="stopped after 0 s"):
        silent.greeting(0.2)
    assert silent.process.poll() is not None
