"""What was asked and how, hashed: other prompts, references or settings give other digits."""

from __future__ import annotations

from dataclasses import replace

import pytest

from r1_lightning.evaluation.protocol import Asking, Protocol, questions_digest
from r1_lightning.types.text import Problem

PROTOCOL = Protocol(
    model="m",
    weights="ab",
    benchmark="aime24",
    questions=3,
    questions_sha256="cd",
    template="t",
    form="r1_zero",
    forced_prefix="",
    judge="AccuracyReward",
    samples=4,
    sampling_temperature=0.6,
    top_p=0.95,
    max_new_tokens=12,
    seed=3,
    commit="c0ffee",
)


@pytest.mark.parametrize("change", [{"samples": 8}, {"commit": "dead"}, {"model": "n"}, {"top_p": 1.0}])
def test_any_change_gives_other_digits(change: dict[str, object]) -> None:
    assert replace(PROTOCOL, **change).digits != PROTOCOL.digits == replace(PROTOCOL).digits


def test_models_their_tokens_and_seeds_are_no_difference_of_protocol() -> None:
    other = replace(PROTOCOL, model="n", weights="x", questions_sha256="y", seed=4)
    assert PROTOCOL.differences(other) == []
    assert PROTOCOL.differences(replace(other, samples=8, top_p=1.0)) == ["samples: 4 and 8", "top_p: 0.95 and 1.0"]


def test_a_question_as_it_was_asked() -> None:
    problem = Problem("What is 2+3", "5", "2,3", metadata={"task": "sums"})
    asking = Asking.of(problem, [1, 2])
    assert (asking.problem_id, asking.text, asking.reference, asking.language) == ("2,3", "What is 2+3", "5", "en")
    assert asking.votes and asking.task == "sums"
    others = [Asking.of(problem, [1, 3]), Asking.of(replace(problem, answer="6"), [1, 2])]
    assert len({questions_digest([item]) for item in (asking, *others)}) == 3
    assert questions_digest([asking, others[0]]) != questions_digest([others[0], asking])


def test_programs_vote_where_their_outputs_are_known() -> None:
    cases = '{"kind": "stdin", "cases": [{"given": "1", "expected": "2"}]}'
    script = '{"kind": "assert", "script": "assert f(1) == 2"}'
    asked = [Asking.of(Problem("?", "", "p", metadata={"tests": tests}), [1]) for tests in (cases, script)]
    assert [item.votes for item in asked] == [True, False]
