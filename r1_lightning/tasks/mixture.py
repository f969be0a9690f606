"""Problems of several kinds in one stream, in shares that may change with the optimizer step.

R1's second RL stage runs 1,700 steps and takes general data and preference rewards in only for the last 400 (R1v2 section 3.2.2),
because longer training against a reward model invites reward hacking (B.5). So each part of a mixture has a `weight`, a step from
which it is there, and a `domain`, by which rewards know what they judge (`rewards/on_domain.py`).

Everything stays a function of (seed, index, step): a hash of (seed, index) chooses the part, in proportion to the weights of those
that are there, and the part gives its own problem number `index`. A part's stream is therefore thinned out: over a finite file, a
pass of its own does not show each row exactly once. The first part is the main one: from it come the held-out problems and the
pre-training documents.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from r1_lightning.tasks.keyed import keyed_random
from r1_lightning.types.errors import require, require_int, require_number
from r1_lightning.types.text import Problem, ProblemSource

DOMAIN = "domain"  # the key in a problem's metadata
REASONING = "reasoning"  # the kind of data of a problem that names none


@dataclass(frozen=True)
class MixturePart:
    """One source: its share among the parts that are there, the optimizer step from which it is, the kind of its problems."""

    source: ProblemSource
    weight: float = 1.0
    from_step: int = 0
    domain: str = REASONING

    def __post_init__(self) -> None:
        require_number("task.source.parts.weight", self.weight, 0.0, open_minimum=True)
        require_int("task.source.parts.from_step", self.from_step, 0)
        require(bool(self.domain), "task.source.parts.domain", self.domain, "a word such as reasoning or general")


class MixtureTask:
    """The `ProblemSource` and `ScheduledSource` of several `parts`, a list or a mapping whose values count.

    Asked without a step it is the mixture of step 0. InvalidInput for no part, and where the first one is not there from step 0.
    """

    def __init__(self, parts: Sequence[MixturePart] | Mapping[str, MixturePart]) -> None:
        self.parts = tuple(parts.values() if isinstance(parts, Mapping) else parts)
        require(bool(self.parts), "task.source.parts", self.parts, "at least one part is needed")
        first = self.parts[0].from_step
        require(first == 0, "task.source.parts.from_step", first, "the first part must be there from step 0")

    @property
    def content_version(self) -> str:
        """Of the parts, in their order."""
        return "mixture-1(" + ", ".join(part.source.content_version for part in self.parts) + ")"

    def at_step(self, step: int) -> ProblemSource:
        """The mixture of the parts that are there at optimizer step `step`."""
        return MixtureTask([replace(part, from_step=0) for part in self.parts if part.from_step <= step])

    def train_problem(self, seed: int, index: int) -> Problem:
        """Problem number `index`: of a part drawn by its weight, and marked with the part's domain."""
        there = [part for part in self.parts if part.from_step == 0]
        rng = keyed_random("mixture", seed, index)
        (part,) = rng.choices(there, [part.weight for part in there])
        problem = part.source.train_problem(seed, index)
        return replace(problem, metadata={**problem.metadata, DOMAIN: part.domain})

    def held_out_problems(self, count: int) -> Sequence[Problem]:
        """Those of the first part."""
        return self.parts[0].source.held_out_problems(count)

    def place_of(self, problem: Problem) -> str:
        """Where a problem's row stands, of a part that knows; or ""."""
        places = (getattr(part.source, "place_of", lambda problem: "")(problem) for part in self.parts)
        return next(filter(None, places), "")

    def documents(self, seed: int, start: int, count: int) -> Iterator[str]:
        """Those of the first part."""
        return self.parts[0].source.documents(seed, start, count)
