"""Dataclasses of text: frozen, comparable, without hidden state; and the classes that implement the Protocols."""

from __future__ import annotations

import dataclasses
import inspect

import pytest

from r1_lightning.rewards.accuracy import AccuracyReward
from r1_lightning.rewards.format import FormatReward
from r1_lightning.tasks.arithmetic import ArithmeticTask
from r1_lightning.tasks.gsm8k import GSM8KTask
from r1_lightning.types.text import Completion, Problem, ProblemSource, Verdict


def test_a_problem_has_few_necessary_fields() -> None:
    problem = Problem("What is 1+2", "3", "1,2")
    assert (problem.language, problem.level, problem.metadata) == ("en", 1, {})
    assert problem == Problem(question="What is 1+2", answer="3", problem_id="1,2", language="en", level=1)
    assert problem != dataclasses.replace(problem, answer="4")


def test_problems_share_no_metadata() -> None:
    assert Problem("a", "1", "a").metadata is not Problem("b", "2", "b").metadata


@pytest.mark.parametrize("value", [Problem("q", "1", "id"), Completion("t", 3, True), Verdict(1.0, "right")])
def test_values_are_frozen_and_take_no_other_fields(value: Problem | Completion | Verdict) -> None:
    first = dataclasses.fields(value)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, first, "other")
    assert not hasattr(value, "__dict__")  # slots: a mistyped field cannot hide in an instance


@pytest.mark.parametrize("source", [ArithmeticTask, GSM8KTask])
def test_problem_sources_fit_their_protocol(source: type) -> None:
    for name in ("train_problem", "held_out_problems", "documents"):
        wanted = list(inspect.signature(getattr(ProblemSource, name)).parameters)
        assert list(inspect.signature(getattr(source, name)).parameters) == wanted, name
    assert isinstance(ArithmeticTask().content_version, str)


@pytest.mark.parametrize("reward", [AccuracyReward(), FormatReward()])
def test_reward_functions_fit_their_protocol(reward: AccuracyReward | FormatReward) -> None:
    verdict = reward(Problem("What is 1+2", "3", "1,2"), Completion("<think>a</think><answer>3</answer>", 9, True))
    assert isinstance(reward.name, str) and isinstance(verdict, Verdict)
    assert verdict.score == 1.0
