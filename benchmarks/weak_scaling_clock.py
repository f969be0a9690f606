"""The clock of the weak-scaling benchmark: a GRPO step's seconds by part, and what two processes waited for each other.

A part's seconds are its own, without those of the parts inside it. A call in which processes meet is kept with the moments at which
this process entered and left it. The processes of one machine read the same clock, so the calls of two of them can be laid side by
side: until the later one came the earlier one waited; from then on it is gloo's time.
"""

from __future__ import annotations

import pickle
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

REST = "rest"


@dataclass
class Step:
    """One optimizer step of one process: seconds by part, calls as (part, entered, left), and bytes by part if counted."""

    number: int
    seconds: float = 0.0
    parts: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    calls: list[tuple[str, float, float]] = field(default_factory=list)
    bytes: dict[str, int] = field(default_factory=lambda: defaultdict(int))


class Clock:
    """Times the current step. `counts_bytes` also measures what is sent, which takes time: for steps that are not measured."""

    def __init__(self) -> None:
        self.step: Step | None = None
        self.began_s = 0.0
        self.counts_bytes = False
        self.names: list[str] = []
        self.inside_s: list[float] = [0.0]  # by depth, the seconds of what is inside
        self.launched_s: float | None = None

    def begin(self, number: int) -> None:
        """Begin step `number`; nothing is kept before the first one."""
        self.step, self.began_s = Step(number), time.perf_counter()

    def end(self) -> Step | None:
        """End the current step and return it; None before the first one."""
        step, self.step = self.step, None
        if step is not None:
            step.seconds = time.perf_counter() - self.began_s
            spent_s = sum(step.parts.values()) + sum(left - entered for _, entered, left in step.calls)
            step.parts[REST] = step.seconds - spent_s
        return step

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Add the seconds of the block to part `name`, without those of parts and calls inside it."""
        start_s = time.perf_counter()
        self.names.append(name)
        self.inside_s.append(0.0)
        try:
            yield
        finally:
            whole_s = time.perf_counter() - start_s
            own_s = whole_s - self.inside_s.pop()
            self.names.pop()
            self.inside_s[-1] += whole_s
            if self.step is not None:
                self.step.parts[name] += own_s

    @contextmanager
    def meeting(self, sent: Any = None) -> Iterator[None]:
        """Note the block as a call in which the processes meet, of the part around it; `sent` is what this one gives."""
        if self.counts_bytes and self.step is not None:
            self.step.bytes[self._name] += sent if isinstance(sent, int) else len(pickle.dumps(sent))
        entered_s = time.perf_counter()
        try:
            yield
        finally:
            self._met(entered_s)

    def launch(self, n_bytes: int) -> None:
        """Note that gradients are sent while the backward pass goes on; `landed` says when they are there."""
        if self.counts_bytes and self.step is not None:
            self.step.bytes[self._name] += n_bytes
        self.launched_s = time.perf_counter()

    def landed(self) -> None:
        """Note a call from the last `launch` until now, if there was one: nothing was left to compute in between."""
        launched_s, self.launched_s = self.launched_s, None
        if launched_s is not None:
            self._met(launched_s)

    @property
    def _name(self) -> str:
        return self.names[-1] if self.names else REST

    def _met(self, entered_s: float) -> None:
        left_s = time.perf_counter()
        self.inside_s[-1] += left_s - entered_s
        if self.step is not None:
            self.step.calls.append((self._name, entered_s, left_s))


def split(calls: Sequence[Sequence[tuple[str, float, float]]]) -> list[dict[str, float]]:
    """Return, for every process, its seconds of "waiting: PART" and "gloo: PART" from the calls of all of them in one step.

    The k-th call of one process is the k-th of the others. Raises `ValueError` if they made other calls.
    """
    found: list[dict[str, float]] = [defaultdict(float) for _ in calls]
    for together in zip(*calls, strict=True):
        if len({name for name, _, _ in together}) != 1:
            raise ValueError(f"the processes made other calls: {sorted(name for name, _, _ in together)}")
        later_s = max(entered_s for _, entered_s, _ in together)
        for own, (name, entered_s, left_s) in zip(found, together, strict=True):
            own[f"waiting: {name}"] += later_s - entered_s
            own[f"gloo: {name}"] += left_s - later_s
    return [dict(own) for own in found]
