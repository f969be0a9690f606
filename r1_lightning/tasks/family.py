"""The miniature's task family: several problem sources combined for training problems, held-out problems and pre-training text.

`tasks/mixture.py` mixes training problems only, and takes held-out problems and documents from its first part. Here every part has
its own weights for problems and for documents, the optimizer step from which its problems are used, and a flag that says whether
evaluations use it. Held-out problems alternate between the tested parts, so that all parts count equally, however rare their
training problems are. A problem's metadata name its origin: the part under `TASK`, the kind of data under `DOMAIN`
(`rewards/on_domain.py`).

No rule can judge answers to general and safety requests, so evaluations of accuracy leave these parts out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace

from r1_lightning.tasks.keyed import keyed_random
from r1_lightning.tasks.mixture import DOMAIN, REASONING
from r1_lightning.tasks.solved import Solved, SolvedSource
from r1_lightning.tasks.step_text import Manner
from r1_lightning.types.errors import InvalidInput, require, require_int, require_number
from r1_lightning.types.text import Problem, ProblemSource

TASK = "task"  # the key in a problem's metadata: the name of its part


@dataclass(frozen=True)
class FamilyPart:
    """One source: its weights among training problems and pre-training documents (0: none), and its domain.

    `from_step` is the optimizer step from which its problems are used; `is_tested` is True if it contributes held-out problems.
    """

    source: ProblemSource
    domain: str = REASONING
    problem_weight: float = 1.0
    document_weight: float = 1.0
    from_step: int = 0
    is_tested: bool = True

    def __post_init__(self) -> None:
        require(bool(self.domain), "task.source.parts.domain", self.domain, "a word such as reasoning or general")
        require_number("task.source.parts.problem_weight", self.problem_weight, 0.0)
        require_number("task.source.parts.document_weight", self.document_weight, 0.0)
        require_int("task.source.parts.from_step", self.from_step, 0)
        require(isinstance(self.is_tested, bool), "task.source.parts.is_tested", self.is_tested, "true or false")


class FamilyTask:
    """The `ProblemSource` and `ScheduledSource` of the named `parts`; before `at_step` it is the family at step 0.

    A `manner` replaces the reasoning style of every part that has one (`tasks/step_text.py`). Raises InvalidInput unless at least
    one part has training problems from step 0, one has documents and one is tested.
    """

    def __init__(self, parts: Mapping[str, FamilyPart], manner: Manner | None = None) -> None:
        self.parts = {name: _in_manner(part, manner) for name, part in parts.items()} if manner else dict(parts)
        uses = {
            "problem_weight": [part for part in self.parts.values() if part.problem_weight and not part.from_step],
            "document_weight": [part for part in self.parts.values() if part.document_weight],
            "is_tested": [part for part in self.parts.values() if part.is_tested],
        }
        for name, found in uses.items():
            require(
                bool(found), f"task.source.parts.{name}", list(self.parts), "at least one part must have it (at step 0)"
            )

    @property
    def content_version(self) -> str:
        """The content versions of the parts, by name."""
        versions = (f"{name}: {part.source.content_version}" for name, part in self.parts.items())
        return f"family-1({', '.join(versions)})"

    def at_step(self, step: int) -> FamilyTask:
        """Return the family at optimizer step `step`: parts with a later `from_step` give no training problems."""
        return FamilyTask({name: _at_step(part, step) for name, part in self.parts.items()})

    def train_problem(self, seed: int, index: int) -> Problem:
        """Return problem number `index`: a hash chooses the part by problem weight, which gives its own number `index`."""
        name = self._part_of(seed, index)
        return self._marked(name, self.parts[name].source.train_problem(seed, index))

    def solved_problem(self, seed: int, index: int) -> Solved:
        """Return `train_problem` with its solution. InvalidInput if the part has no solutions."""
        name = self._part_of(seed, index)
        source = self.parts[name].source
        if not isinstance(source, SolvedSource):
            raise InvalidInput(
                f"task.source.parts.{name}: {type(source).__name__} does not say how a problem is solved"
            )
        solved = source.solved_problem(seed, index)
        return replace(solved, problem=self._marked(name, solved.problem))

    def held_out_problems(self, count: int) -> Sequence[Problem]:
        """Return `count` held-out problems, alternating between the tested parts until a part has no more."""
        require_int("held_out_problems", count, 1)
        tested = [name for name, part in self.parts.items() if part.is_tested]
        shares = [len(range(place, count, len(tested))) for place in range(len(tested))]
        given = {
            name: [self._marked(name, problem) for problem in self.parts[name].source.held_out_problems(share)]
            for name, share in zip(tested, shares, strict=True)
            if share
        }
        turns = ((given.get(tested[number % len(tested)], ()), number // len(tested)) for number in range(count))
        return [problems[place] for problems, place in turns if place < len(problems)]

    def documents(self, seed: int, start: int, count: int) -> Iterator[str]:
        """Yield documents number `start` .. `start` + `count` - 1; a hash chooses each one's part by document weight."""
        names = [name for name, part in self.parts.items() if part.document_weight]
        weights = [self.parts[name].document_weight for name in names]
        for number in range(start, start + count):
            (name,) = keyed_random("family", "document", seed, number).choices(names, weights)
            yield from self.parts[name].source.documents(seed, number, 1)

    def of_domains(self, domains: Sequence[str]) -> FamilyTask:
        """Return a family of the parts in these domains, all used from step 0, with their weights (1 in place of 0)."""
        chosen = {
            name: replace(part, from_step=0, problem_weight=part.problem_weight or 1.0, is_tested=True)
            for name, part in self.parts.items()
            if part.domain in domains
        }
        require(
            bool(chosen), "domains", list(domains), f"the task has {sorted({p.domain for p in self.parts.values()})}"
        )
        return FamilyTask(chosen)

    def _part_of(self, seed: int, index: int) -> str:
        there = [name for name, part in self.parts.items() if part.problem_weight and not part.from_step]
        weights = [self.parts[name].problem_weight for name in there]
        return keyed_random("family", "problem", seed, index).choices(there, weights)[0]

    def _marked(self, name: str, problem: Problem) -> Problem:
        return replace(problem, metadata={**problem.metadata, DOMAIN: self.parts[name].domain, TASK: name})


def _in_manner(part: FamilyPart, manner: Manner) -> FamilyPart:
    source = part.source
    if is_dataclass(source) and any(field.name == "manner" for field in fields(source)):
        return replace(part, source=replace(source, manner=manner))
    return part


def _at_step(part: FamilyPart, step: int) -> FamilyPart:
    return replace(part, from_step=0 if part.from_step <= step else part.from_step)
