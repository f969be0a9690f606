"""The time budget, and what a part that hangs or crashes costs: itself, and nothing else."""

from __future__ import annotations

import json

import pytest

from benchmarks.gpu.check import FIRST_S, PATIENCE, Check
from benchmarks.gpu.office import Broken, Greeting, Listed
from benchmarks.gpu.report import RecordFile, Row

PARTS = [Listed("grpo", "a", 20.0), Listed("sampling", "b", 30.0), Listed("recipe", "c", 10.0)]


class Clock:
    def __init__(self):
        self.now_s = 1000.0

    def __call__(self):
        return self.now_s


class Script:
    """A worker in which part i takes `seconds[i]`; if that is more than its limit, it is stopped. `crashes` end it at once."""

    started = 0

    def __init__(self, clock, seconds, crashes=(), start_s=5.0):
        self.clock, self.seconds, self.crashes, self.start_s = clock, seconds, crashes, start_s
        self.limits = {}

    def connect(self):
        self.started += 1
        return self

    def greeting(self, limit_s):
        self.clock.now_s += self.start_s
        return Greeting(PARTS, {"device": "NVIDIA H200"}, "")

    def measure(self, number, limit_s, take):
        self.limits[number] = limit_s
        name, work, _ = PARTS[number]
        take(Row(name, work, "tokens/s", 1.0, "alone"))
        if number in self.crashes:
            raise Broken("failed: the process that measures ended with code -11")
        if self.seconds[number] > limit_s:
            self.clock.now_s += limit_s
            raise Broken(f"stopped after {limit_s:.0f} s")
        self.clock.now_s += self.seconds[number]
        take(Row(name, work, "tokens/s", 2.0, "beside"))

    def close(self):
        pass


def checked(script, seconds, record=lambda greeting: None, only=("grpo", "sampling", "recipe"), is_patient=False):
    one = Check(script.connect, seconds, record, is_patient, script.clock)
    one.run(only)
    return one


def test_every_part_runs_within_the_budget_in_one_process():
    script = Script(Clock(), [20, 30, 10])
    rows = checked(script, 480).table.rows
    assert [(row.work, row.value, row.beside) for row in rows] == [(work, 2.0, "beside") for work in "abc"]
    assert script.started == 1
    # PATIENCE x estimate + FIRST_S
    assert script.limits == {0: 2 * 20 + 40, 1: 2 * 30 + 40, 2: 2 * 10 + 40}
    assert (PATIENCE, FIRST_S) == (2.0, 40.0)


def test_a_part_is_not_begun_with_less_time_than_its_estimate_but_a_shorter_one_is():
    # 60 s: 5 to start, 20 for a; 35 are left, b takes 30, and 5 are left for c, which needs 10
    late = checked(Script(Clock(), [20, 30, 10]), 60).table.rows[2]
    assert late.not_run == "5 s are left of --seconds, and it needs about 10" and not late.failed
    # 50 s: 25 are left after a: not enough for b, enough for c
    rows = checked(Script(Clock(), [20, 30, 10]), 50).table.rows
    assert [row.value for row in rows] == [2.0, None, 2.0]


def test_a_hanging_part_is_stopped_and_the_next_ones_run_in_a_new_process():
    script = Script(Clock(), [1000, 30, 10])
    one = checked(script, 480)
    assert [(row.value, row.beside) for row in one.table.rows] == [
        (1.0, "alone; then stopped after 80 s"),
        (2.0, "beside"),
        (2.0, "beside"),
    ]
    assert script.started == 2 and not any(row.failed for row in one.table.rows)


def test_no_part_takes_more_than_what_is_left():
    clock = Clock()
    checked(Script(clock, [1000, 1000, 1000]), 100)
    assert clock.now_s <= 1000 + 100


def test_a_crash_keeps_what_was_measured_and_is_a_failure():
    script = Script(Clock(), [20, 30, 10], crashes=(1,))
    rows = checked(script, 480).table.rows
    assert rows[1].value == 1.0 and rows[1].failed and rows[1].beside.endswith("ended with code -11")
    assert [row.failed for row in rows] == [False, True, False] and script.started == 2


def test_a_rehearsal_gives_a_part_all_the_time():
    script = Script(Clock(), [400, 30, 10])
    assert checked(script, 480, is_patient=True).table.rows[0].value == 2.0
    assert script.limits[0] == 475


def test_a_worker_that_does_not_start_is_a_failure():
    class Dead(Script):
        def greeting(self, limit_s):
            raise Broken("stopped after 180 s")

    (row,) = checked(Dead(Clock(), []), 480).table.rows
    assert row.failed and row.not_run == "failed: the measuring process did not start: stopped after 180 s"


def test_the_file_is_whole_after_every_row(tmp_path):
    seen = []

    class Killed(Script):
        def measure(self, number, limit_s, take):
            super().measure(number, limit_s, take)
            (path,) = tmp_path.glob("*.json")
            seen.append([row["value"] for row in json.loads(path.read_text())["rows"]])
            if number == 1:
                raise KeyboardInterrupt  # whatever ends the command

    script = Killed(Clock(), [20, 30, 10])
    with pytest.raises(KeyboardInterrupt):
        checked(script, 480, lambda greeting: RecordFile(tmp_path, greeting.hardware, "0123abc"))
    assert seen == [[2.0], [2.0, 2.0]]
    (path,) = tmp_path.iterdir()
    assert [row["work"] for row in json.loads(path.read_text())["rows"]] == ["a", "b"]
