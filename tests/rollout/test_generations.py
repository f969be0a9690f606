"""Rows of generations: some of one, and several under one another."""

from __future__ import annotations

import pytest
import torch

from r1_lightning.rollout.generations import joined, mismatch, no_rows, rows_of
from tests.rollout.fakes import generation_of


def test_joined_pads_on_the_right() -> None:
    both = joined([generation_of([[1, 2, 3]], [True], 9), generation_of([[4], [5]], [False, True], 9)], pad_id=9)
    assert both.completion_ids.tolist() == [[1, 2, 3], [4, 9, 9], [5, 9, 9]]
    assert both.completion_mask.tolist() == [[True, True, True], [True, False, False], [True, False, False]]
    assert both.policy_logprobs[:, 1:].tolist() == [[pytest.approx(-0.01), pytest.approx(-0.02)], [0, 0], [0, 0]]
    assert both.finished.tolist() == [True, False, True]


def test_rows_come_in_the_order_asked_for() -> None:
    some = rows_of(generation_of([[1, 2], [3], [4, 5]], [True, False, True], 9), torch.tensor([2, 1]))
    assert some.completion_ids.tolist() == [[4, 5], [3, 9]]
    assert some.completion_mask.tolist() == [[True, True], [True, False]]
    assert some.policy_logprobs[:, 0].tolist() == [-2.0, -1.0] and some.sampler_logprobs[:, 0].tolist() == [-1.0, -0.5]
    assert some.finished.tolist() == [True, False]


def test_no_rows_leave_the_others_unchanged() -> None:
    one = generation_of([[1, 2, 3]], [True], 9)
    for both in (joined([no_rows(), one], pad_id=9), joined([one, joined([], 9)], pad_id=9)):
        for name, value in vars(one).items():
            assert torch.equal(getattr(both, name), value) and getattr(both, name).dtype == value.dtype, name


def test_the_mismatch_by_hand() -> None:
    """Token by token 0.5, 0.25 and, in the second row, 0.0; what is padding does not count: mean 0.25, largest 0.5."""
    drawn = generation_of([[1, 2], [3]], [True, True], 9)
    drawn.policy_logprobs[:] = torch.tensor([[-1.0, -2.0], [-3.0, -7.0]])
    drawn.sampler_logprobs[:] = torch.tensor([[-1.5, -1.75], [-3.0, 0.0]])
    assert mismatch(drawn) == (0.25, 0.5)
    assert mismatch(no_rows()) == (0.0, 0.0)
