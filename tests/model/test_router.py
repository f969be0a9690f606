"""Routing: affinities choose with the bias and weigh without it, within the permitted groups only."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from r1_lightning.model.router import Router, choose_experts, gate_weights
from tests.model.tiny import normal, randomise, tiny, twins


def _router(seed: int = 0, **changes) -> Router:
    router = Router(tiny(**changes))
    randomise(router, seed)
    return router


def _sets(chosen: torch.Tensor) -> list[set[int]]:
    return [set(row) for row in chosen.tolist()]


# ------------------------------------------------------------------------------------------------------------ choosing


def test_groups_literal_numbers():
    # Groups (0, 1), (2, 3), (4, 5); scores below. Group sums of the best two: 1.0, 1.1, 0.9: groups 0 and 1 stay.
    # Expert 4 has the second highest score of all and is forbidden. Top 2 within: 0 (0.9) and 2 (0.6).
    scores = torch.tensor([[0.9, 0.1, 0.6, 0.5, 0.8, 0.1]])
    assert _sets(choose_experts(scores, torch.zeros(6), n_chosen=2, n_groups=3, n_limited=2)) == [{0, 2}]
    assert _sets(choose_experts(scores, torch.zeros(6), n_chosen=2, n_groups=1, n_limited=1)) == [{0, 4}]


def test_forbidden_groups_stay_forbidden_when_every_biased_score_is_negative():
    # Scores minus 1: groups -1.0, -0.9, -1.1 (sums of two). Group 1 stays alone: experts 2 and 3, at -0.4 and -0.5.
    # Masked with 0.0 instead of -inf, the four forbidden experts would all beat them.
    scores, bias = torch.tensor([[0.9, 0.1, 0.6, 0.5, 0.8, 0.1]]), torch.full((6,), -1.0)
    assert _sets(choose_experts(scores, bias, n_chosen=2, n_groups=3, n_limited=1)) == [{2, 3}]


def test_bias_moves_the_choice():
    scores = torch.tensor([[0.9, 0.1, 0.6, 0.5]])
    bias = torch.tensor([-0.9, 0.9, 0.0, 0.0])
    assert _sets(choose_experts(scores, bias, n_chosen=2, n_groups=1, n_limited=1)) == [{1, 2}]


def _numpy_choice(scores: np.ndarray, bias: np.ndarray, n_chosen: int, n_groups: int, n_limited: int) -> set[int]:
    """One token, as loops: the permitted groups by the sum of their best two, then the best of their experts."""
    biased, size = scores + bias, len(scores) // n_groups
    group_scores = [np.sort(biased[g * size : (g + 1) * size])[-2:].sum() for g in range(n_groups)]
    permitted = np.argsort(group_scores)[-n_limited:]
    candidates = [i for i in range(len(scores)) if i // size in permitted]
    return set(sorted(candidates, key=lambda i: -biased[i])[:n_chosen])


@pytest.mark.parametrize(("n_groups", "n_limited", "n_chosen"), [(4, 2, 3), (4, 1, 4), (8, 4, 8), (2, 2, 5)])
@pytest.mark.parametrize("offset", [0.0, -0.5, -1.5])
def test_choice_against_numpy_loops(n_groups, n_limited, n_chosen, offset):
    scores, bias = normal(200, 16).sigmoid(), 0.3 * normal(16, seed=1) + offset
    chosen = choose_experts(scores, bias, n_chosen, n_groups, n_limited)
    expected = [_numpy_choice(row.numpy(), bias.numpy(), n_chosen, n_groups, n_limited) for row in scores]
    assert _sets(chosen) == expected
    group_of = chosen // (16 // n_groups)
    assert max(len(set(row)) for row in group_of.tolist()) <= n_limited


# ------------------------------------------------------------------------------------------------------------ weighing


def test_gate_weights_literal_numbers():
    # Affinities 0.6 and 0.2 of 0.8, times 2.5: 1.875 and 0.625
    gates = gate_weights(torch.tensor([[0.6, 0.9, 0.2]]), torch.tensor([[0, 2]]), 2.5)
    assert gates.tolist()[0] == pytest.approx([1.875, 0.625], abs=1e-6)


def test_affinities_that_underflow_give_zero_and_no_nan():
    assert gate_weights(torch.zeros(1, 3), torch.tensor([[0, 2]]), 2.5).tolist() == [[0.0, 0.0]]


def test_bias_never_enters_the_gates():
    """Equal on all experts of a choice or not: whatever the bias, gates are normalised affinities of the chosen."""
    router, x = _router(), normal(50, 32)
    scores, chosen, gates = router(x)
    expected = scores.gather(-1, chosen)
    torch.testing.assert_close(gates, 2.5 * expected / expected.sum(-1, keepdim=True), atol=1e-6, rtol=0)
    router.expert_bias += 7.0  # the same for all experts: the choice cannot change, so nothing may
    again_scores, again_chosen, again_gates = router(x)
    assert _sets(again_chosen) == _sets(chosen)
    order, again_order = chosen.argsort(-1), again_chosen.argsort(-1)
    assert torch.equal(again_scores, scores)
    torch.testing.assert_close(again_gates.gather(-1, again_order), gates.gather(-1, order), atol=1e-6, rtol=0)


def test_gates_sum_to_route_scale():
    _, _, gates = _router(route_scale=1.7)(normal(50, 32))
    torch.testing.assert_close(gates.sum(-1), torch.full((50,), 1.7), atol=1e-6, rtol=0)
    assert gates.min() > 0


# ---------------------------------------------------------------------------------------------------------- the module


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"n_expert_groups": 1, "n_limited_groups": 1, "n_activated_experts": 3},
        {"n_routed_experts": 16, "n_expert_groups": 4, "n_limited_groups": 1, "n_activated_experts": 4},
    ],
)
@torch.no_grad()
def test_against_huggingface(changes):
    model, twin = twins(tiny(**changes))
    x = normal(300, 32)
    scores, chosen, gates = model.blocks[1].feed_forward.router(x)
    their_logits, their_gates, their_chosen = twin.model.layers[1].mlp.gate(x)
    torch.testing.assert_close(scores, their_logits.sigmoid(), atol=1e-6, rtol=0)
    assert _sets(chosen) == _sets(their_chosen)
    dense, their_dense = torch.zeros_like(scores), torch.zeros_like(scores)
    dense.scatter_(-1, chosen, gates)
    their_dense.scatter_(-1, their_chosen, their_gates)
    torch.testing.assert_close(dense, their_dense, atol=1e-6, rtol=0)


def test_gradient_reaches_the_weights_through_gates_and_scores_but_not_the_bias():
    router = _router()
    scores, _, gates = router(normal(20, 32))
    (gates * normal(20, 2, seed=3)).sum().backward()
    assert router.weight.grad.abs().max() > 1e-3
    assert scores.requires_grad
    assert not router.expert_bias.requires_grad
    assert [name for name, _ in router.named_parameters()] == ["weight"]
    assert "expert_bias" in router.state_dict()


def test_router_stays_in_fp32_under_autocast():
    router, x = _router(), normal(50, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores, chosen, gates = router(x)
    assert (scores.dtype, gates.dtype) == (torch.float32, torch.float32)
    expected = router(x)
    assert torch.equal(scores, expected[0])
    assert torch.equal(chosen, expected[1])


@torch.no_grad()
def test_each_token_is_routed_alone():
    router, x = _router(), normal(30, 32)
    whole = router(x)
    parts = [router(x[:13]), router(x[13:])]
    for i in range(3):
        torch.testing.assert_close(torch.cat([part[i] for part in parts]), whole[i], atol=1e-6, rtol=0)
