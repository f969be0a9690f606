"""How many programs the sandbox judges per second: `python benchmarks/sandbox.py`.

Two rates, measured alternately, medians of the rounds, with a worker per processor: programs with one case each, where starting
the sandbox is nearly all there is, and cases of programs that have twenty. Half of the programs are right; every text comes
once, because equal programs run once. What the programs themselves compute is next to nothing.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the checkout, installed or not

from r1_lightning.rewards.code_reward import CodeReward
from r1_lightning.rewards.sandbox.sandbox import isolation
from r1_lightning.text.code_tests import TESTS, CodeCase, CodeTests
from r1_lightning.types.text import Completion, Problem

PROGRAMS, CASES = 64, 20

Pairs = list[tuple[Problem, Completion]]


def programs(first: int, count: int, cases: int) -> Pairs:
    """`count` programs with `cases` cases each; every second one is wrong, and its last case says so."""
    tests = CodeTests("stdin", tuple(CodeCase(f"{n}\n", f"{2 * n}\n") for n in range(cases)))
    problem = Problem("Double it.", "", "p", metadata={TESTS: tests.to_json()})
    pairs = []
    for number in range(first, first + count):
        right = "2 * n" if number % 2 else f"2 * n if n < {cases - 1} else {number} + 10**6"
        text = f"<think>so</think><answer>\n```python\n# {number}\nn = int(input())\nprint({right})\n```\n</answer>"
        pairs.append((problem, Completion(text, len(text), True)))
    return pairs


def rate(reward: CodeReward, pairs: Pairs) -> float:
    """Verdicts per second of the clock."""
    start_s = time.perf_counter()
    verdicts = reward.judge_many(pairs)
    seconds = time.perf_counter() - start_s
    right = sum(verdict.score for verdict in verdicts) / len(verdicts)
    if right != 0.5:
        raise SystemExit(f"{right:.2f} of the programs passed and half of them are right: this measures something else")
    return len(pairs) / seconds


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python benchmarks/sandbox.py", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of both measurements (%(default)s)")
    parser.add_argument("--workers", type=int, default=None, help="programs at a time (one per processor)")
    options = parser.parse_args(arguments)
    if not isolation().available:
        print(f"not measured: {isolation().missing}")
        return 0
    reward = CodeReward(workers=options.workers)
    load = os.getloadavg()[0]
    started, cases = [], []
    for number in range(options.rounds):
        started.append(rate(reward, programs(number * PROGRAMS, PROGRAMS, 1)))
        cases.append(CASES * rate(reward, programs(number * PROGRAMS, PROGRAMS, CASES)))
        print(f"round {number + 1}: {started[-1]:,.1f} programs/s, {cases[-1]:,.0f} cases/s", flush=True)
    print(f"programs of one case: {statistics.median(started):,.1f} per second (least {min(started):,.1f})")
    print(f"cases, {CASES} a program: {statistics.median(cases):,.0f} per second (least {min(cases):,.0f})")
    print(f"load before: {load:.1f}; {os.cpu_count()} processors, {reward.workers} programs at a time")
    return 0


if __name__ == "__main__":
    sys.exit(main())
