"""The container of a rollout: what it says of its rows, what it logs, all by hand."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from r1_lightning.rollout.results import Rollout
from r1_lightning.text.reasoning_format import FAULTS, R1_FAULTS
from r1_lightning.types.text import Completion
from tests.rollout.fakes import rollout_of
from tests.rollout.letters import COMPLETIONS, EOS, FINISHED, GENERATION, PROBLEMS, SAMPLES, TEXTS, A, B


def test_each_row_stands_beside_its_own_problem() -> None:
    assert SAMPLES.group_size == 3
    expected = [Completion(t, len(c), f) for t, c, f in zip(TEXTS, COMPLETIONS, FINISHED, strict=True)]
    assert SAMPLES.completions() == expected
    assert SAMPLES.pairs() == list(zip([PROBLEMS[0]] * 3 + [PROBLEMS[1]] * 3, expected, strict=True))


def test_a_group_with_a_reward_that_is_no_number_is_not_judged() -> None:
    rollout = rollout_of([[A], [B]], COMPLETIONS, torch.tensor([[1.0, float("nan"), 2.0], [1.0, 0.0, 3.0]]))
    assert rollout.is_judged.tolist() == [False, True]
    assert rollout.known_rewards.tolist() == [[0, 0, 0], [1, 0, 3]]


def test_unjudged_completions_have_rewards_and_advantages_of_0() -> None:
    rollout = Rollout.unjudged([[A], [B]], GENERATION)
    assert rollout.group_size == 3 and rollout.rewards.tolist() == [[0, 0, 0], [0, 0, 0]]
    assert rollout.advantages.shape == GENERATION.completion_ids.shape and not rollout.advantages.any()


def test_what_is_logged_by_hand() -> None:
    """Lengths 2, 2, 3, 3, 3, 1; four of six finished; of "我ok", "ok", "", "我", "1+1", "ok 好" the first and last mix.

    Policy log-probs -(row + place / 100): -(0 * 2 + 1 * 2 + 2 * 3 + 3 * 3 + 4 * 3 + 5 * 1 + 0.11) = -34.11 over 14 tokens.
    """
    rewards = torch.tensor([[1.0, 0.0, 2.0], [1.0, 1.0, 1.0]])
    rollout = dataclasses.replace(
        rollout_of([[A], [B]], COMPLETIONS, rewards),
        generation=GENERATION,
        texts=["我ok", "<think>ok</think><answer>1</answer>", "", "<think>我</think>", "1+1", "ok 好"],
        parts={"accuracy": rewards / 2, "format": torch.ones(2, 3)},
    )
    assert rollout.summary() == pytest.approx(
        {
            "rollout/reward_mean": 1.0,
            "rollout/reward_std": (2 / 6) ** 0.5,  # of 1, 0, 2, 1, 1, 1 about 1: two are off by one
            "rollout/accuracy_mean": 0.5,
            "rollout/format_mean": 1.0,
            "rollout/completion_tokens_mean": 14 / 6,
            "rollout/finished_fraction": 4 / 6,
            "rollout/policy_logprob_mean": -34.11 / 14,
            "rollout/sampler_logprob_mean": -34.11 / 28,
            "rollout/sampler_mismatch": 34.11 / 28,
            "rollout/sampler_mismatch_max": 2.5,
            "rollout/zero_variance_fraction": 0.5,
            "rollout/unjudged_fraction": 0.0,
            "rollout/drawn_groups": 2.0,
            "rollout/verifier_timeouts": 0.0,
            "rollout/mixed_language_fraction": 2 / 6,
            **dict.fromkeys((f"format/{fault}" for fault in FAULTS), 0.0),
            "format/missing_think": 4 / 6,  # all but the second, which is well formed, and the fourth
            "format/missing_answer": 5 / 6,
            "format/text_outside": 3 / 6,  # the third is empty
        }
    )


def test_the_spread_of_rewards_is_of_judged_completions() -> None:
    rewards = torch.tensor([[3.0, 1.0], [float("nan"), float("nan")]])  # 3 and 1 are each 1 away from 2
    assert rollout_of([[A]] * 2, [[EOS]] * 4, rewards).reward_std == 1.0
    assert rollout_of([[A]], [[EOS]] * 2, rewards[1:]).reward_std == 0.0


def test_groups_without_variance_teach_nothing() -> None:
    rewards = torch.tensor([[1.0, 1.0], [0.0, 0.0], [0.0, 1.0], [0.3, 0.3]])
    assert rollout_of([[A]] * 4, [[EOS]] * 8, rewards).zero_variance_fraction == 0.75


def test_faults_are_those_of_the_template_s_form() -> None:
    rewards = torch.zeros(1, 2)
    rollout = dataclasses.replace(
        rollout_of([[A]], COMPLETIONS[:2], rewards), texts=["<think>a</think>5", "<answer>5</answer>"], form="r1"
    )
    found = {name: value for name, value in rollout.summary().items() if name.startswith("format/")}
    assert found == {
        **dict.fromkeys((f"format/{fault}" for fault in R1_FAULTS), 0.0),
        "format/missing_think": 0.5,
        "format/tag_in_summary": 0.5,
    }
