"""The program of a verifier process: reads pairs of answers and writes verdicts.

`rewards.verifiers.pool` starts it as a separate program. A task is one line of JSON in, `[given, reference]`, and one line out,
`[same, why]`; both are ASCII, so that model-written text cannot contain a line break. The first line out is `"ready"`. The process
ends at the end of its input, when its parent changes, at its own CPU limit (set for each task, in case the parent can no longer
kill it), and by SIGKILL.

Its address space is limited, too. A task that reaches this limit gets the verdict "out of memory", and the process ends, because
its state is no longer reliable.
"""

from __future__ import annotations

import json
import math
import os
import select
import signal
import sys
from collections.abc import Callable
from typing import BinaryIO

ORPHAN_CHECK_S = 5.0  # how often an idle worker checks that its parent is alive
SPARE_CPU_S = 3  # CPU seconds beyond the task's limit, after which the kernel kills a task that the parent did not
_WARM_UP = (("x^2+2x+1", "(x+1)^2"), (r"\frac{\sqrt{3}}{3}", r"\frac{1}{\sqrt{3}}"), ("x<3", r"(-\infty,3)"))


def main() -> None:
    """Compare answers until the input ends."""
    serve(_warm_up, judge)


def serve(warm_up: Callable[[], None], judge: Callable[[str, str], tuple[float, str, bool]]) -> None:
    """Serve tasks until the input ends. Command-line arguments: memory limit in bytes, CPU limit of a task in seconds.

    `warm_up` imports what tasks need, within the memory limit. `judge` returns a score (or whether the answers are the same), the
    reason, and whether this process may continue.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    memory_bytes, cpu_limit_s = int(sys.argv[1]), float(sys.argv[2])
    # Prints of other code must not mix with the verdicts.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    parent = os.getppid()
    _limit_memory(memory_bytes)
    warm_up()
    _write(answers, "ready")
    while (line := _next_line(sys.stdin.buffer, parent)) is not None:
        _limit_cpu(cpu_limit_s)
        score, why, healthy = judge(*json.loads(line))
        _write(answers, [score, why])
        if not healthy:
            return


def _warm_up() -> None:
    from r1_lightning.rewards.equality.structure import compare

    for pair in _WARM_UP:
        compare(*pair)


def judge(given: str, reference: str) -> tuple[bool, str, bool]:
    """Return whether both are the same, the reason, and whether this process may continue. No text makes it raise."""
    from r1_lightning.rewards.equality.structure import compare

    try:
        comparison = compare(given, reference)
    except MemoryError:
        return False, "out of memory", False
    except RecursionError:
        return False, "too deeply nested", True
    except Exception as error:  # sympy and the parser raise many types; an answer that causes an error is wrong
        return False, f"not comparable ({type(error).__name__})", True
    return comparison.same, comparison.why, True


def _next_line(tasks: BinaryIO, parent: int) -> bytes | None:
    """Return the next task, or None at the end of input. The parent writes complete lines, one at a time."""
    while not select.select([tasks], [], [], ORPHAN_CHECK_S)[0]:
        if os.getppid() != parent:
            return None
    return tasks.readline() or None


def _write(answers: BinaryIO, message: object) -> None:
    answers.write(json.dumps(message).encode("ascii") + b"\n")


def _limit_memory(size: int) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (size, size))


def _limit_cpu(cpu_limit_s: float) -> None:
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF)
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    soft = math.ceil(used.ru_utime + used.ru_stime + cpu_limit_s) + SPARE_CPU_S
    resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


if __name__ == "__main__":
    main()
