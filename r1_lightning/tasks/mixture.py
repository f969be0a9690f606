"""Mixes several problem sources into one stream, with weights that may change with the optimizer step.

R1's second RL stage runs 1,700 steps and adds general data and preference rewards only for the last 400 (R1v2 section 3.2.2),
because longer training against a reward model invites reward hacking (B.5). So each part of a mixture has a `weight`, the step from
which it is active, and a `domain`, by which rewards select their problems (`rewards/on_domain.py`).

A problem is a function of (seed, index, step): a hash of (seed, index) chooses an active part in proportion to the weights, and the
part gives its own problem number `index`. So a part's numbers are used with gaps, and a pass over a finite file does not show
each row exactly once. Held-out problems and pre-training documents come from the first part.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from r1_lightning.tasks.keyed import keyed_random
from r1_lightning.types.errors import require, require_int, require_number
from r1_lightning.types.text import Problem, ProblemSource

DOMAIN = "domain"  # the key in a problem's metadata
REASONING = "reasoning"  # the domain of a problem that names none


@dataclass(frozen=True)
class MixturePart:
    """One source: its weight among the active parts, the optimizer step from which it is active, and its domain."""

    source: ProblemSource
    weight: float = 1.0
    from_step: int = 0
    domain: str = REASONING

    def __post_init__(self) -> None:
        require_number("task.source.parts.weight", self.weight, 0.0, open_minimum=True)
        require_int("task.source.parts.from_step", self.from_step, 0)
        require(bool(self.domain), "task.source.parts.domain", self.domain, "a word such as reasoning or general")


class MixtureTask:
    """The `ProblemSource` and `ScheduledSource` of several `parts` (a list, or a mapping, of which the values are used).

    Before `at_step` it is the mixture of step 0. Raises InvalidInput without parts, or if the first is not active from step 0.
    """

    def __init__(self, parts: Sequence[MixturePart] | Mapping[str, MixturePart]) -> None:
        self.parts = tuple(parts.values() if isinstance(parts, Mapping) else parts)
        require(bool(self.parts), "task.source.parts", self.parts, "at least one part is needed")
        first = self.parts[0].from_step
        require(first == 0, "task.source.parts.from_step", first, "the first part must be there from step 0")

    @property
    def content_version(self) -> str:
        """The content versions of the parts, in order."""
        return "mixture-1(" + ", ".join(part.source.content_version for part in self.parts) + ")"

    def at_step(self, step: int) -> ProblemSource:
        """Return the mixture of the parts that are active at optimizer step `step`."""
        return MixtureTask([replace(part, from_step=0) for part in self.parts if part.from_step <= step])

    def train_problem(self, seed: int, index: int) -> Problem:
        """Return problem number `index` from a part drawn by weight, marked with the part's domain."""
        there = [part for part in self.parts if part.from_step == 0]
        rng = keyed_random("mixture", seed, index)
        (part,) = rng.choices(there, [part.weight for part in there])
        problem = part.source.train_problem(seed, index)
        return replace(problem, metadata={**problem.metadata, DOMAIN: part.domain})

    def held_out_problems(self, count: int) -> Sequence[Problem]:
        """Those of the first part."""
        return self.parts[0].source.held_out_problems(count)

    def place_of(self, problem: Problem) -> str:
        """Return the place of a problem's row from the part that knows it, or ""."""
        places = (getattr(part.source, "place_of", lambda problem: "")(problem) for part in self.parts)
        return next(filter(None, places), "")

    def documents(self, seed: int, start: int, count: int) -> Iterator[str]:
        """Those of the first part."""
        return self.parts[0].source.documents(seed, start, count)
