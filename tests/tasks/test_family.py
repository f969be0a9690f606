"""The family of tasks: shares by weight for problems and for documents, held-out problems in turn, parts that join at a step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pytest

from r1_lightning.tasks.equations import EquationsTask
from r1_lightning.tasks.family import TASK, FamilyPart, FamilyTask
from r1_lightning.tasks.general import GeneralTask
from r1_lightning.tasks.mixture import DOMAIN
from r1_lightning.tasks.solved import Solved, SolvedSource
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.text import Problem, ScheduledSource
from tests.support.shares import near


@dataclass(frozen=True)
class Named:
    """A source whose problems say who made them and which they are."""

    name: str
    content_version: str = "named-1"

    def train_problem(self, seed: int, index: int) -> Problem:
        return Problem(f"{self.name} {seed} {index}", "", self.name, metadata={"kept": "yes"})

    def solved_problem(self, seed: int, index: int) -> Solved:
        return Solved(self.train_problem(seed, index), ("step",))

    def held_out_problems(self, count: int) -> Sequence[Problem]:
        return [Problem(f"held out {self.name} {number}", "", self.name) for number in range(count)]

    def documents(self, seed: int, start: int, count: int) -> Iterator[str]:
        yield from (f"{self.name} {seed} {number}" for number in range(start, start + count))


PARTS = {
    "sums": FamilyPart(Named("sums"), problem_weight=3.0, document_weight=1.0),
    "code": FamilyPart(Named("code"), problem_weight=1.0, document_weight=2.0),
    "chat": FamilyPart(
        Named("chat"), "general", problem_weight=4.0, document_weight=1.0, from_step=1300, is_tested=False
    ),
    "care": FamilyPart(Named("care"), "safety", problem_weight=0.0, document_weight=0.0, is_tested=False),
}
FAMILY = FamilyTask(PARTS)


def shares(texts: Sequence[str]) -> dict[str, float]:
    counts = Counter(text.split()[0] for text in texts)
    return {name: counts[name] / len(texts) for name in PARTS}


def all_near(expected: dict[str, float], draws: int = 4_000) -> dict[str, object]:
    return {name: near(share, draws) for name, share in expected.items()}


def test_problems_have_the_problem_weights() -> None:
    before = shares([FAMILY.at_step(1299).train_problem(0, index).question for index in range(4_000)])
    after = shares([FAMILY.at_step(1300).train_problem(0, index).question for index in range(4_000)])
    assert before == all_near({"sums": 0.75, "code": 0.25, "chat": 0.0, "care": 0.0})
    assert after == all_near({"sums": 0.375, "code": 0.125, "chat": 0.5, "care": 0.0})
    assert [FAMILY.train_problem(0, i) for i in range(20)] == [FAMILY.at_step(0).train_problem(0, i) for i in range(20)]
    assert isinstance(FAMILY, ScheduledSource)


def test_documents_have_the_document_weights_whatever_the_step() -> None:
    texts = list(FAMILY.documents(0, 0, 4_000))
    assert shares(texts) == all_near({"sums": 0.25, "code": 0.5, "chat": 0.25, "care": 0.0})
    assert [text.split(" ", 1)[1] for text in texts] == [f"0 {number}" for number in range(4_000)]
    assert list(FAMILY.documents(0, 7, 5)) == texts[7:12]


def test_held_out_problems_come_in_turn_and_say_whose_they_are() -> None:
    problems = FAMILY.held_out_problems(5)
    assert [p.question for p in problems] == [
        "held out sums 0",
        "held out code 0",
        "held out sums 1",
        "held out code 1",
        "held out sums 2",
    ]
    assert [p.metadata[TASK] for p in problems] == ["sums", "code", "sums", "code", "sums"]
    assert [p.question for p in FAMILY.held_out_problems(1)] == ["held out sums 0"]
    with pytest.raises(InvalidInput, match="held_out_problems=0"):
        FAMILY.held_out_problems(0)


def test_problems_are_those_of_the_part_and_marked() -> None:
    for index in range(30):
        problem = FAMILY.at_step(1300).train_problem(7, index)
        name = problem.metadata[TASK]
        assert problem.question == f"{name} 7 {index}" and problem.problem_id == name
        assert problem.metadata == {"kept": "yes", TASK: name, DOMAIN: PARTS[name].domain}
        assert FAMILY.at_step(1300).solved_problem(7, index) == Solved(problem, ("step",))


def test_parts_of_some_domains_alone() -> None:
    chosen = FAMILY.of_domains(["general", "safety"])
    found = shares([chosen.train_problem(0, index).question for index in range(4_000)])
    assert found == all_near({"sums": 0, "code": 0, "chat": 0.8, "care": 0.2})  # weights 4 and, for 0, 1
    with pytest.raises(
        InvalidInput, match=r"domains=\['law'\] is not allowed: the task has \['general', 'reasoning', 'safety'\]"
    ):
        FAMILY.of_domains(["law"])


def test_one_manner_for_every_part_that_thinks_aloud() -> None:
    parts = {"equations": FamilyPart(EquationsTask(manner="sparing")), "general": FamilyPart(GeneralTask(), "general")}
    clean = FamilyTask(parts, manner="clean")
    assert clean.parts["equations"].source == EquationsTask(manner="clean")
    assert clean.parts["general"].source == GeneralTask()
    assert FamilyTask(parts).parts == parts


def test_the_content_version_is_that_of_the_parts() -> None:
    family = FamilyTask({"a": FamilyPart(Named("a", "first-1")), "b": FamilyPart(Named("b", "second-2"))})
    assert family.content_version == "family-1(a: first-1, b: second-2)"


def test_a_source_that_does_not_solve() -> None:
    @dataclass(frozen=True)
    class Unsolved:
        content_version: str = "unsolved-1"

        def train_problem(self, seed: int, index: int) -> Problem:
            return Problem("", "", "")

    assert not isinstance(Unsolved(), SolvedSource)
    with pytest.raises(InvalidInput, match=r"task.source.parts.odd: Unsolved does not say how"):
        FamilyTask({"odd": FamilyPart(Unsolved())}).solved_problem(0, 0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"problem_weight": -1.0}, "task.source.parts.problem_weight=-1.0"),
        ({"document_weight": "much"}, "task.source.parts.document_weight='much'"),
        ({"from_step": -1}, "task.source.parts.from_step=-1"),
        ({"domain": ""}, "task.source.parts.domain=''"),
        ({"is_tested": 1}, "task.source.parts.is_tested=1"),
    ],
)
def test_bad_parts(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        FamilyPart(Named("sums"), **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"problem_weight": 0.0}, "task.source.parts.problem_weight=.* at least one part"),
        ({"from_step": 3}, "task.source.parts.problem_weight=.* at least one part"),
        ({"document_weight": 0.0}, "task.source.parts.document_weight=.* at least one part"),
        ({"is_tested": False}, "task.source.parts.is_tested=.* at least one part"),
    ],
)
def test_a_family_without_a_use(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        FamilyTask({"sums": replace(PARTS["sums"], **settings)})  # type: ignore[arg-type]
