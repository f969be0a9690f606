"""Weak scaling of a GRPO step: twice the prompts with two processes, as long as half of them with one?

    python benchmarks/weak_scaling.py --out benchmarks/results/weak_scaling_DATE.csv

Each process has one thread and one core of its own (its affinity), and the same number of prompts in every arrangement:

    one            a process alone, the other core has nothing to do
    side by side   two such processes, each a run of its own: what sharing the machine costs (memory, caches, clock) without a word
                   between them
    together       one run of two processes (gloo, DDP): all of that, waiting for the slower one, what is sent, and work that each
                   does for both (packing the whole rollout)

All processes are there from the beginning and the arrangements take turns (one, side by side, together, one, ...), a block of steps
each; who has no turn waits for a line. Steps of the same number have the same completion lengths, so they are compared with each
other. Of a block, the first step (the caches are another's, and it writes the checkpoint) and the last (it makes one) are not
measured. What the parts of a step are: `weak_scaling_clock.py` has the clock, `weak_scaling_worker.py` what it times.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the checkout, installed or not

from benchmarks.weak_scaling_clock import split

ROOT = Path(__file__).resolve().parents[1]
ONE, BESIDE, TOGETHER = "one", "side by side", "together"
ARRANGEMENTS = (ONE, BESIDE, TOGETHER)
BLOCK_STEPS = 6
MICRO_BATCHES = 4
PROMPTS, QUICK_PROMPTS = 16, 2  # of each process
PARTS = ("rollout", "rewards", "batches", "forward", "backward", "optimizer", "rest")
NAMES = {
    "batches": "decoding, advantages, packing",
    "forward": "log-probs of policy and reference",
    "optimizer": "clipping and AdamW",
    "rest": "Lightning and the rest",
}
MEETINGS = {
    "batches": "the rollout",
    "backward": "gradients",
    "optimizer": "metrics",
    "rest": "Lightning's question about signals, once per micro-batch",
}
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Role:
    """A process of an arrangement: `rank` of the `count` that train together, on core number `rank`."""

    rank: int
    count: int

    @property
    def core(self) -> int:
        cores = sorted(os.sched_getaffinity(0))
        return cores[self.rank % len(cores)]


ROLES = {ONE: (Role(0, 1),), BESIDE: (Role(0, 1), Role(1, 1)), TOGETHER: (Role(0, 2), Role(1, 2))}


class Arrangement:
    """The processes of one arrangement, which take a turn of `BLOCK_STEPS` steps at a time."""

    def __init__(self, name: str, folder: Path, rounds: int, quick: bool) -> None:
        self.name = name
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        self.processes = []
        for role in ROLES[name]:
            words = ["--worker", str(role.rank), str(role.count), str(folder), "--rounds", str(rounds)]
            self.processes.append(
                subprocess.Popen(
                    [sys.executable, __file__, *words, *(["--quick"] if quick else [])],
                    env=environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )

    def ready(self) -> None:
        """Wait until every process stands before its next block."""
        self._answers()

    def turn(self) -> list[list[dict[str, Any]]]:
        """Let the processes take their turn; returns the steps of each. `SystemExit` if one of them ends."""
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        return self._answers()

    def _answers(self) -> list[list[dict[str, Any]]]:
        return [self._answer(process) for process in self.processes]

    def _answer(self, process: subprocess.Popen[str]) -> list[dict[str, Any]]:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("["):
                found: list[dict[str, Any]] = json.loads(line)
                return found
        raise SystemExit(f"a process of the benchmark ({self.name}) ended early")

    def close(self) -> None:
        for process in self.processes:
            if process.stdin is not None:
                process.stdin.close()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


def measure(rounds: int, quick: bool, limit_s: float) -> list[Row]:
    """Let the arrangements take turns; returns a row for each step of each process, measured or not.

    No round begins that would end later than `limit_s` after the start, if it takes as long as the one before.
    """
    rows: list[Row] = []
    start_s = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folders = {arrangement: Path(name) / arrangement.replace(" ", "_") for arrangement in ARRANGEMENTS}
        for folder in folders.values():
            folder.mkdir()
        made = [Arrangement(arrangement, folders[arrangement], rounds, quick) for arrangement in ARRANGEMENTS]
        try:
            for arrangement in made:
                arrangement.ready()
            for turn in range(rounds):
                round_s = time.monotonic()
                for arrangement in made:
                    own = rows_of(arrangement.name, turn, arrangement.turn())
                    print(f"round {turn}, {arrangement.name}: {seconds(own):.3f} s/step", flush=True)
                    rows += own
                if 2 * time.monotonic() - round_s - start_s > limit_s:
                    break
        finally:
            for arrangement in made:
                arrangement.close()
    return rows


def rows_of(arrangement: str, turn: int, blocks: Sequence[Sequence[Mapping[str, Any]]]) -> list[Row]:
    """Return a row for each step of a block of each process, with what it waited and sent."""
    rows: list[Row] = []
    for steps in zip(*blocks, strict=True):
        is_measured = 0 < steps[0]["number"] % BLOCK_STEPS < BLOCK_STEPS - 1
        met = split([step["calls"] for step in steps])
        for rank, (step, calls) in enumerate(zip(steps, met, strict=True)):
            found: dict[str, Any] = {"arrangement": arrangement, "round": turn, "rank": rank, "step": step["number"]}
            found |= {"measured": int(is_measured), "seconds": step["seconds"]}
            found |= {name: step["parts"].get(name, 0.0) for name in (*PARTS, "checkpoint")}
            for kind in ("waiting", "gloo"):
                found |= {f"{kind}: {part}": calls.get(f"{kind}: {part}", 0.0) for part in MEETINGS}
            rows.append(found | {f"bytes: {part}": step["bytes"].get(part, 0) for part in MEETINGS})
    return rows


def seconds(rows: Sequence[Row]) -> float:
    """Median seconds of the measured steps, each the mean of its processes'."""
    by_step: dict[int, list[float]] = {}
    for row in rows:
        if row["measured"]:
            by_step.setdefault(row["step"], []).append(row["seconds"])
    return statistics.median(map(statistics.mean, by_step.values()))


def ratios(rows: Sequence[Row], other: str) -> list[float]:
    """By round: the seconds of a step of `one` divided by those of a step of `other`. 1 is perfect weak scaling."""
    return [
        seconds(_chosen(rows, arrangement=ONE, round=turn)) / seconds(_chosen(rows, arrangement=other, round=turn))
        for turn in sorted({row["round"] for row in rows})
    ]


def _chosen(rows: Sequence[Row], **values: Any) -> list[Row]:
    return [row for row in rows if all(row[name] == value for name, value in values.items())]


def render(rows: Sequence[Row], prompts: int) -> str:
    """Two Markdown tables: seconds and ratio of each arrangement, and the mean milliseconds of a step's parts."""
    lines = [
        "| processes | prompts | s/step | one / this (median of rounds; least to most) | prompts/s |",
        "|---" * 5 + "|",
    ]
    for name in ARRANGEMENTS:
        own, found = _chosen(rows, arrangement=name), ratios(rows, name)
        count, step_s = len(ROLES[name]), seconds(own)
        ratio = f"**{statistics.median(found):.2f}** ({min(found):.2f} to {max(found):.2f})"
        lines.append(f"| {name} | {count * prompts} | {step_s:.2f} | {ratio} | {count * prompts / step_s:.1f} |")
    lines += ["", f"| ms of a step | {' | '.join(ARRANGEMENTS)} |", "|---" * (len(ARRANGEMENTS) + 1) + "|"]
    clean = {name: _chosen(rows, arrangement=name, measured=1) for name in ARRANGEMENTS}
    columns = {NAMES.get(part, part): part for part in PARTS}
    columns |= {f"waiting for the other: {what}": f"waiting: {part}" for part, what in MEETINGS.items()}
    columns |= {f"gloo: {what}": f"gloo: {part}" for part, what in MEETINGS.items()}
    for what, column in {**columns, "the step": "seconds"}.items():
        cells = [f"{1000 * statistics.mean(row[column] for row in clean[name]):,.0f}" for name in ARRANGEMENTS]
        lines.append(f"| {what} | {' | '.join(cells)} |")
    return "\n".join(lines)


def beside_the_table(rows: Sequence[Row]) -> str:
    """One line: what a process sends in a step, and what a checkpoint takes, neither of which is in the table."""
    counted = _chosen(rows, arrangement=TOGETHER, rank=0)
    sent = [f"{what} {max(row[f'bytes: {part}'] for row in counted) / 1e6:.2f} MB" for part, what in MEETINGS.items()]
    cost = ", ".join(f"{name} {1000 * statistics.median(checkpoints(rows, name)):.0f} ms" for name in ARRANGEMENTS)
    return f"A process gives, in a step: {', '.join(sent)}. A checkpoint, median seen by rank 0: {cost}."


def checkpoints(rows: Sequence[Row], arrangement: str) -> list[float]:
    """Seconds that each checkpoint took rank 0: made after the last step of a block, written before the next one trains."""
    spent = {row["step"]: row["checkpoint"] for row in _chosen(rows, arrangement=arrangement, rank=0)}
    return [spent[step - 1] + spent[step] for step in spent if step > 0 and step % BLOCK_STEPS == 0]


def work(rank: int, count: int, folder: Path, rounds: int, quick: bool) -> None:
    """A process of the benchmark: on its core before torch is loaded, so that all of its threads are there."""
    role = Role(rank, count)
    os.sched_setaffinity(0, {role.core})
    from benchmarks import weak_scaling_worker
    from benchmarks.setting import FULL, QUICK, World

    size, prompts = (QUICK, QUICK_PROMPTS) if quick else (FULL, PROMPTS)
    world = World(replace(size, prompts=prompts * count))
    weak_scaling_worker.work(world, role, rounds * BLOCK_STEPS, folder)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python benchmarks/weak_scaling.py", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=6, help="turns of every arrangement (%(default)s)")
    parser.add_argument("--seconds", type=float, default=330, help="begin no round that would end later (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="a tiny rehearsal: its numbers mean nothing")
    parser.add_argument("--out", type=Path, help="a CSV file for the rows")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        rank, count, folder = options.worker
        work(int(rank), int(count), Path(folder), options.rounds, options.quick)
        return 0
    load = os.getloadavg()[0]
    rows = measure(options.rounds, options.quick, options.seconds)
    if options.out:
        with options.out.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows({name: _rounded(value) for name, value in row.items()} for row in rows)
    rounds = len({row["round"] for row in rows})
    print(f"\nload before: {load:.1f}; {os.cpu_count()} cores; {rounds} rounds of {BLOCK_STEPS - 2} measured steps\n")
    print(f"{render(rows, QUICK_PROMPTS if options.quick else PROMPTS)}\n\n{beside_the_table(rows)}")
    return 0


def _rounded(value: Any) -> Any:
    return round(value, 5) if isinstance(value, float) else value


if __name__ == "__main__":
    sys.exit(main())
