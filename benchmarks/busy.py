"""What a busy laptop costs: `python benchmarks/busy.py` measures training calm, and beside one and two busy processes.

torch's CPU operators split their work over OpenMP threads that meet in a barrier after each operator. A thread that arrives first
spins, which is fastest while every thread has a core of its own. When another program holds one of the cores, the spinning thread
keeps the other core from the very thread it waits for, and an operator of a hundred microseconds takes a time slice of several
milliseconds. How long a thread spins is decided by environment variables that OpenMP reads once, when torch is loaded:

    today      nothing set: GNU OpenMP spins for some milliseconds, then sleeps
    bounded    GOMP_SPINCOUNT: a few microseconds of spinning, then sleep (what the program sets, `run/config/openmp.py`)
    passive    OMP_WAIT_POLICY=PASSIVE: sleep at once, so that every barrier costs a wake-up
    one        one thread: no barriers, and no second core

Each setting has a process of its own that builds the models once and waits for orders; the settings take turns (A B C D A B C D),
for each number of busy processes. A busy process adds numbers in Python for as long as the measurement lasts. Pre-training is
`train_steps` steps of the default shape (42 rows of 96 tokens), a GRPO step that of `benchmarks/run.py` in FP32 without a compiler.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the checkout, installed or not

from r1_lightning.run.config.openmp import SPIN_COUNT, SPIN_COUNT_VARIABLE

SETTINGS: dict[str, dict[str, str]] = {
    "today": {},
    "bounded": {SPIN_COUNT_VARIABLE: str(SPIN_COUNT)},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
    "one": {"OMP_NUM_THREADS": "1"},
}
OPENMP_VARIABLES = (SPIN_COUNT_VARIABLE, "OMP_WAIT_POLICY", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
BUSY = (0, 1, 2)
ROUNDS = 3


@dataclass(frozen=True)
class Measured:
    """Medians over rounds for one setting beside `busy` other processes: pre-training tokens/s, seconds of a GRPO step."""

    setting: str
    busy: int
    tokens_per_s: float
    grpo_step_s: float


class Worker:
    """A process with one setting's environment; `measure` has it train once and returns (tokens/s, seconds of a GRPO step)."""

    def __init__(self, environment: Mapping[str, str], quick: bool) -> None:
        clean = {name: value for name, value in os.environ.items() if name not in OPENMP_VARIABLES}
        command = [sys.executable, __file__, "--worker", *(["--quick"] if quick else [])]
        self._process = subprocess.Popen(
            command, env={**clean, **environment}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._answer()  # it has built its models and run once

    def measure(self) -> tuple[float, float]:
        assert self._process.stdin is not None
        self._process.stdin.write("measure\n")
        self._process.stdin.flush()
        tokens_per_s, grpo_step_s = self._answer()
        return tokens_per_s, grpo_step_s

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> list[float]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("["):
                return json.loads(line)
        raise SystemExit("a worker of the benchmark ended early")


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """`count` processes that do nothing but compute, for as long as the block lasts."""
    processes = [multiprocessing.get_context("spawn").Process(target=_compute, daemon=True) for _ in range(count)]
    for process in processes:
        process.start()
    if processes:
        time.sleep(1.0)  # until they are at it
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.join()


def _compute() -> None:
    number = 0
    while True:
        number += 1


def measure_all(rounds: int, quick: bool, busy: Sequence[int], settings: Sequence[str]) -> list[Measured]:
    """The settings beside every number of busy processes; prints each round as it comes."""
    workers = {name: Worker(SETTINGS[name], quick) for name in settings}
    results = []
    for count in busy:
        values: dict[str, list[tuple[float, float]]] = {name: [] for name in workers}
        with busy_processes(count):
            for number in range(rounds):
                for name, worker in workers.items():
                    values[name].append(worker.measure())
                    tokens_per_s, grpo_step_s = values[name][-1]
                    line = (
                        f"{count} busy, round {number}, {name}: {tokens_per_s:,.0f} tokens/s, {grpo_step_s:.2f} s/step"
                    )
                    print(line, flush=True)
        for name, pairs in values.items():
            tokens, steps = zip(*pairs, strict=True)
            results.append(Measured(name, count, statistics.median(tokens), statistics.median(steps)))
    for worker in workers.values():
        worker.close()
    return results


def render(results: Sequence[Measured]) -> str:
    """A Markdown table: settings as lines; each cell a median and, in brackets, times slower than the first setting calm."""
    by_key = {(result.setting, result.busy): result for result in results}
    counts = sorted({result.busy for result in results})
    calm = by_key[results[0].setting, counts[0]]
    heads = [f"{work}, {count} busy" for work in ("tokens/s", "s/step") for count in counts]
    lines = [f"| setting | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for name in dict.fromkeys(result.setting for result in results):
        rows = [by_key[name, count] for count in counts]
        cells = [f"{row.tokens_per_s:,.0f} ({calm.tokens_per_s / row.tokens_per_s:.2f})" for row in rows]
        cells += [f"{row.grpo_step_s:.2f} ({row.grpo_step_s / calm.grpo_step_s:.2f})" for row in rows]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def work(quick: bool) -> None:
    """A worker: builds both works, runs each once, then measures whenever a line comes in."""
    from benchmarks import pretraining
    from benchmarks.command import silence_warnings
    from benchmarks.grpo_ours import measurement
    from benchmarks.grpo_work import uneven_work
    from benchmarks.setting import FULL, QUICK, World
    from r1_lightning.run.build.torch_setup import keep_freed_memory

    silence_warnings()
    keep_freed_memory()
    world = World(QUICK if quick else FULL)
    train = pretraining.measurement(world)
    grpo = measurement(
        world, uneven_work(world.size), world.size.row_tokens[0 if quick else 1], world.size.micro_batches[0]
    )
    train(), grpo()
    print(json.dumps([0.0, 0.0]), flush=True)
    for _ in sys.stdin:
        print(json.dumps([train(), grpo()]), flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python benchmarks/busy.py", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how often each setting is measured (%(default)s)")
    parser.add_argument("--busy", type=int, nargs="+", default=list(BUSY), help="busy processes beside (%(default)s)")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS), help="which to measure")
    parser.add_argument("--quick", action="store_true", help="a tiny rehearsal: its numbers mean nothing")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        work(options.quick)
        return 0
    load = os.getloadavg()[0]
    results = measure_all(options.rounds, options.quick, options.busy, options.settings)
    print(
        f"\nload before the run {load:.1f}; {os.cpu_count()} cores; medians of {options.rounds} rounds\n\n{render(results)}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
