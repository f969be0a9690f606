"""A mixture: shares by weight, parts that join at a step, domains, and the same problems whatever was asked before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest

from r1_lightning.tasks.mixture import DOMAIN, MixturePart, MixtureTask
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.text import Problem, ScheduledSource
from tests.support.shares import near


@dataclass(frozen=True)
class Named:
    """A source whose problems say who made them and which they are."""

    name: str

    @property
    def content_version(self) -> str:
        return f"{self.name}-1"

    def train_problem(self, seed: int, index: int) -> Problem:
        return Problem(f"{self.name} {seed} {index}", "", self.name, metadata={"kept": "yes"})

    def held_out_problems(self, count: int) -> Sequence[Problem]:
        return [Problem(f"held out {self.name}", "", self.name)] * count

    def documents(self, seed: int, start: int, count: int) -> Iterator[str]:
        yield f"document of {self.name}"


def mixture() -> MixtureTask:
    return MixtureTask(
        {
            "sums": MixturePart(Named("sums"), weight=3.0),
            "code": MixturePart(Named("code"), weight=1.0),
            "chat": MixturePart(Named("chat"), weight=4.0, from_step=1300, domain="general"),
        }
    )


def share(source: object, name: str, count: int = 4000) -> float:
    problems = [source.train_problem(0, index) for index in range(count)]  # type: ignore[attr-defined]
    return sum(problem.problem_id == name for problem in problems) / count


def test_shares_are_the_weights() -> None:
    before, after = mixture().at_step(1299), mixture().at_step(1300)
    assert [share(before, name) for name in ("sums", "code", "chat")] == [near(p, 4_000) for p in [0.75, 0.25, 0.0]]
    assert share(before, "chat") == 0.0
    assert [share(after, name) for name in ("sums", "code", "chat")] == [near(p, 4_000) for p in [0.375, 0.125, 0.5]]


def test_without_a_step_it_is_step_0() -> None:
    source = mixture()
    assert [source.train_problem(0, i) for i in range(50)] == [source.at_step(0).train_problem(0, i) for i in range(50)]
    assert isinstance(source, ScheduledSource)


def test_problems_are_those_of_the_part_and_marked() -> None:
    for index in range(30):
        problem = mixture().at_step(1700).train_problem(7, index)
        assert problem.question == f"{problem.problem_id} 7 {index}"
        domain = "general" if problem.problem_id == "chat" else "reasoning"
        assert problem.metadata == {"kept": "yes", DOMAIN: domain}


def test_the_first_part_gives_tests_and_documents() -> None:
    source = mixture()
    assert [p.question for p in source.held_out_problems(2)] == ["held out sums"] * 2
    assert list(source.documents(0, 0, 1)) == ["document of sums"]
    assert source.content_version == "mixture-1(sums-1, code-1, chat-1)"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weight": 0.0}, "task.source.parts.weight=0.0"),
        ({"from_step": -1}, "task.source.parts.from_step=-1"),
        ({"domain": ""}, "task.source.parts.domain=''"),
    ],
)
def test_bad_parts(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        MixturePart(Named("sums"), **settings)  # type: ignore[arg-type]


def test_bad_mixtures() -> None:
    with pytest.raises(InvalidInput, match="at least one part"):
        MixtureTask([])
    with pytest.raises(InvalidInput, match="from_step=5 is not allowed: the first part must be there from step 0"):
        MixtureTask([MixturePart(Named("sums"), from_step=5)])
