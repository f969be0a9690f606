"""How many answers the mathematics verifier judges per second: `python benchmarks/verifier.py`.

Two rates, measured alternately, medians of the rounds: plain numbers, which text and exact fractions decide in this process, and
formulas, which need algebra in the worker processes. Every formula is asked once: a pair that was seen before costs nothing, and in
training a group often gives the same answer. The workers have started and read a few formulas before the clock does.
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

from r1_lightning.rewards.math_reward import MathReward
from r1_lightning.rewards.verifiers.pool import cpu_seconds
from r1_lightning.types.text import Completion, Problem

NUMBERS, FORMULAS = 5_000, 480
# What answers of the kind look like; {a}, {b}, {c} are numbers, so that no pair comes twice. Half of each kind is right.
FORMS = (
    (r"\frac{{{a}\sqrt{{{b}}}}}{{{b}}}", r"\frac{{{a}}}{{\sqrt{{{b}}}}}", r"\frac{{{b}}}{{\sqrt{{{a}}}}}"),
    (r"(x+{a})^2", r"x^2+{d}x+{e}", r"x^2+{d}x+{b}"),
    (r"{a}\pi+{b}", r"{b}+\pi\cdot {a}", r"{b}+\pi"),
    (r"({a},\sqrt{{{b}}}]", r"({a},{b}^{{1/2}}]", r"[{a},{b}^{{1/2}}]"),
    (r"\{{{a},\sqrt{{{b}}}\}}", r"\{{\sqrt{{{b}}},{a}\}}", r"\{{\sqrt{{{a}}},{b}\}}"),
    (r"x<{a}", r"(-\infty,{a})", r"(-\infty,{a}]"),
)

Pairs = list[tuple[Problem, Completion]]


def numbers(first: int) -> Pairs:
    """Plain numbers, half of them right."""
    return [_pair(f"{n:,}" if n % 3 else f"{n}.0", str(n + n % 2)) for n in range(first, first + NUMBERS)]


def formulas(first: int) -> Pairs:
    """Formulas, half of them right, none of which was made for another `first`."""
    pairs = []
    for n in range(first, first + FORMULAS):
        reference, same, other = FORMS[n % len(FORMS)]
        values = {"a": n + 2, "b": 2 * n + 3, "d": 2 * (n + 2), "e": (n + 2) ** 2}
        pairs.append(_pair((same if n // len(FORMS) % 2 else other).format(**values), reference.format(**values)))
    return pairs


def rate(reward: MathReward, pairs: Pairs) -> float:
    """Verdicts per second of the clock."""
    start_s = time.perf_counter()
    verdicts = reward.judge_many(pairs)
    seconds = time.perf_counter() - start_s
    right = sum(verdict.score for verdict in verdicts) / len(verdicts)
    if not 0.4 < right < 0.6:
        raise SystemExit(
            f"{right:.2f} of the answers were found right and half of them are: this measures something else"
        )
    return len(pairs) / seconds


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python benchmarks/verifier.py", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of both measurements (%(default)s)")
    parser.add_argument("--workers", type=int, default=None, help="processes (one per processor)")
    options = parser.parse_args(arguments)
    reward = MathReward(workers=options.workers)
    load = os.getloadavg()[0]
    reward.judge_many(formulas(10**6))  # starts the workers
    exact, symbolic, per_cpu_s = [], [], []
    for number in range(options.rounds):
        exact.append(rate(reward, numbers(number * NUMBERS)))
        before_s = _cpu_seconds(reward)
        symbolic.append(rate(reward, formulas(number * FORMULAS)))
        per_cpu_s.append(FORMULAS / (_cpu_seconds(reward) - before_s))
        print(f"round {number + 1}: {exact[-1]:,.0f} plain numbers/s, {symbolic[-1]:,.0f} formulas/s", flush=True)
    reward.close()
    print(f"plain numbers: {statistics.median(exact):,.0f} verdicts/s (least {min(exact):,.0f})")
    print(f"formulas:      {statistics.median(symbolic):,.0f} verdicts/s (least {min(symbolic):,.0f})")
    print(f"               {statistics.median(per_cpu_s):,.0f} per second of CPU time, which other work does not share")
    print(f"load before: {load:.1f}; {os.cpu_count()} processors")
    return 0


def _cpu_seconds(reward: MathReward) -> float:
    return sum(map(cpu_seconds, reward.pool.process_ids()))


def _pair(answer: str, reference: str) -> tuple[Problem, Completion]:
    text = f"<think> so it is </think> <answer> {answer} </answer>"
    return Problem("?", reference, "p"), Completion(text, len(text), True)


if __name__ == "__main__":
    sys.exit(main())
