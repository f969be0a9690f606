"""Judging: each completion against its own problem, by every reward function, and scores that are none."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from r1_lightning.rewards.combine import WeightedSum
from r1_lightning.rollout.generations import rows_of
from r1_lightning.rollout.judging import joined_judged, judge
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.text import Completion, Problem, Verdict
from tests.rollout.letters import COMPLETIONS, FINISHED, SAMPLES, TEXTS, Matches, Short


def test_judging_keeps_order_and_gives_each_completion_its_own_problem() -> None:
    """accuracy + 2 * brevity; brevity is 0.8 for 2 tokens, 0.7 for 3 and 0.9 for 1."""
    accuracy = Matches()
    reward = WeightedSum([accuracy, Short()], weights=[1.0, 2.0])
    judged = judge(SAMPLES, reward)
    assert judged.parts["accuracy"].tolist() == [[1, 0, 0], [1, 1, 0]]
    torch.testing.assert_close(judged.parts["brevity"], torch.tensor([[0.8, 0.8, 0.7], [0.7, 0.7, 0.9]]))
    torch.testing.assert_close(judged.rewards, torch.tensor([[2.6, 1.6, 1.4], [2.4, 2.4, 1.8]]))
    assert judged.reasons == {"accuracy": [""] * 6, "brevity": [f"{n} tokens" for n in (2, 2, 3, 3, 3, 1)]}
    assert [problem for problem, _ in accuracy.seen] == ["p0", "p0", "p0", "p1", "p1", "p1"]
    expected = [Completion(t, len(c), f) for t, c, f in zip(TEXTS, COMPLETIONS, FINISHED, strict=True)]
    assert [completion for _, completion in accuracy.seen] == expected
    assert type(expected[0].n_tokens) is type(accuracy.seen[0][1].n_tokens) is int


def test_whole_numbers_are_scores_like_any_other() -> None:
    """A reward may say `Verdict(1, "")`: the metrics are means of real numbers all the same."""
    reward = WeightedSum([Matches()])
    reward.rewards = (lambda problem, completion: Verdict(int(completion.text == problem.answer), ""),)
    reward.rewards[0].name = "accuracy"  # type: ignore[attr-defined]
    judged = judge(SAMPLES, reward)
    assert judged.rewards.dtype == judged.parts["accuracy"].dtype == torch.float32
    assert float(judged.parts["accuracy"].mean()) == 0.5


def test_a_score_that_is_no_number_stops_the_rollout_by_name() -> None:
    reward = WeightedSum([Matches()])
    reward.rewards = (lambda problem, completion: Verdict(float("nan"), ""),)
    reward.rewards[0].name = "accuracy"  # type: ignore[attr-defined]
    with pytest.raises(InvalidInput, match="reward accuracy: score=nan"):
        judge(SAMPLES, reward)


@dataclass
class Broken:
    """No number for the completion "b", 1 for "a", else 0."""

    name: str = "broken"

    def __call__(self, problem: Problem, completion: Completion) -> Any:
        return None if completion.text == "b" else Verdict(float(completion.text == "a"), "")


def test_a_group_with_a_score_that_is_no_number_can_be_dropped_instead() -> None:
    """The first group holds "b": all of it is left out. Its other scores still count in the means."""
    judged = judge(SAMPLES, WeightedSum([Matches(), Broken()], on_bad_score="drop_group"))
    assert [math.isnan(value) for value in judged.rewards[0].tolist()] == [False, True, False]
    assert judged.is_judged.tolist() == [False, True]
    assert judged.known_rewards.tolist() == [[0, 0, 0], judged.rewards[1].tolist()]
    with pytest.raises(InvalidInput, match="reward broken: score=None"):
        judge(SAMPLES, WeightedSum([Matches(), Broken()]))


def test_a_reward_may_join_late() -> None:
    late = WeightedSum([Matches(), Short()], from_step={"brevity": 1300})
    assert set(judge(SAMPLES, late, step=1299).parts) == {"accuracy"}
    assert set(judge(SAMPLES, late, step=1300).parts) == {"accuracy", "brevity"}
    assert judge(SAMPLES, late, step=1299).rewards.tolist() == [[1, 0, 0], [1, 1, 0]]


def test_timeouts_are_counted_by_completion() -> None:
    """Two of six completions have "b": both of its rewards ran out of time, which counts once each."""

    @dataclass
    class Late:
        name: str

        def __call__(self, problem: Problem, completion: Completion) -> Verdict:
            return Verdict(0.0, "timed out", timed_out=completion.text == "b")

    expected = sum(text == "b" for text in TEXTS)
    assert judge(SAMPLES, WeightedSum([Late("one"), Late("two")])).timeouts == expected > 0
    assert judge(SAMPLES, WeightedSum([Matches()])).timeouts == 0


def test_shares_judged_apart_are_the_whole() -> None:
    """Problem by problem, each three of the six completions."""
    reward = WeightedSum([Matches(), Short()], weights=[1.0, 2.0])
    whole, shares = judge(SAMPLES, reward), []
    for place in range(2):
        rows = range(3 * place, 3 * place + 3)
        part = replace(
            SAMPLES,
            problems=[SAMPLES.problems[place]],
            prompts=[SAMPLES.prompts[place]],
            texts=[SAMPLES.texts[row] for row in rows],
            generation=rows_of(SAMPLES.generation, torch.tensor(rows)),
        )
        shares.append(replace(judge(part, reward), problems=(), prompts=(), timeouts=place + 1))
    together = joined_judged(shares, SAMPLES.problems, SAMPLES.prompts, 0)
    assert together.timeouts == 3 and together.texts == list(SAMPLES.texts) and together.problems == SAMPLES.problems
    assert torch.equal(together.rewards, whole.rewards) and together.reasons == whole.reasons
    assert together.parts.keys() == whole.parts.keys()
    assert all(torch.equal(together.parts[name], scores) for name, scores in whole.parts.items())
    assert torch.equal(together.generation.completion_mask, whole.generation.completion_mask)
