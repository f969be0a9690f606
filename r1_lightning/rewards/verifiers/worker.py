"""The inside of a verifier process: reads pairs of answers, writes verdicts, and never learns what a model is.

Started by `rewards.verifiers.pool` as a program of its own. One task is one line of JSON in, `[given, reference]`, and one line
out, `[same, why]`; both are ASCII, so that no text of a model can be taken for the end of a line. The first line out is
`"ready"`. What ends this process: the end of its input, another parent than the one it began with, its own CPU limit
(set anew for each task, in case nobody is left to kill it), and SIGKILL.

Its address space is limited, too. A task that meets the limit is answered with "out of memory", and the process ends, because
what else failed on the way is unknown.
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

ORPHAN_CHECK_S = 5.0  # how often an idle worker looks whether its parent is still there
SPARE_CPU_S = 3  # seconds of CPU after which the kernel ends a task that the parent should have ended
_WARM_UP = (("x^2+2x+1", "(x+1)^2"), (r"\frac{\sqrt{3}}{3}", r"\frac{1}{\sqrt{3}}"), ("x<3", r"(-\infty,3)"))


def main() -> None:
    """Compare answers until the input ends."""
    serve(_warm_up, judge)


def serve(warm_up: Callable[[], None], judge: Callable[[str, str], tuple[float, str, bool]]) -> None:
    """Serve tasks until the input ends. Arguments: the memory limit in bytes, the CPU limit of a task in seconds.

    `warm_up` loads what tasks need, within the memory limit. `judge` gives a score (or whether they are the same), why, and
    whether this process may go on.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    memory_bytes, cpu_limit_s = int(sys.argv[1]), float(sys.argv[2])
    # Whatever prints must not print into the answers.
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
    """Whether they are the same, why, and whether this process may go on. Raises nothing that a text can cause."""
    from r1_lightning.rewards.equality.structure import compare

    try:
        comparison = compare(given, reference)
    except MemoryError:
        return False, "out of memory", False
    except RecursionError:
        return False, "too deeply nested", True
    except Exception as error:  # sympy and the parser raise nearly everything; none of it is a right answer
        return False, f"not comparable ({type(error).__name__})", True
    return comparison.same, comparison.why, True


def _next_line(tasks: BinaryIO, parent: int) -> bytes | None:
    """The next task, or None when there will be none. The parent writes whole lines, one at a time."""
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
