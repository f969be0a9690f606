"""Experts in static shapes equal the grouped products, forward and backward; no place is taken twice."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from r1_lightning.model.expert_blocks import blocked_experts, dense_experts, lay_out
from r1_lightning.model.experts import Experts
from r1_lightning.model.precision import PlainPrecision
from tests.model.tiny import normal, randomise, tiny

WAYS = [blocked_experts, dense_experts]


def _case(n_tokens: int, n_experts: int = 8, n_chosen: int = 2) -> tuple[Tensor, ...]:
    chosen = normal(n_tokens, n_experts, seed=1).topk(n_chosen).indices
    return normal(n_tokens, 32), chosen, normal(n_tokens, n_chosen, seed=2).sigmoid()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("n_tokens", [1, 23, 300])  # below, within and over a block of 128
def test_output_and_gradients_are_those_of_the_grouped_products(way, n_tokens):
    experts = Experts(tiny(), PlainPrecision())
    randomise(experts, 0)
    weights = [experts.gate_up.weight, experts.down.weight]
    x, chosen, gates = _case(n_tokens)
    results = []
    for compute in (experts, lambda x, chosen, gates: way(x, chosen, gates, *weights)):
        inputs = [x.clone().requires_grad_(), gates.clone().requires_grad_()]
        output = compute(inputs[0], chosen, inputs[1])
        gradients = torch.autograd.grad((output * normal(n_tokens, 32, seed=3)).sum(), [*inputs, *weights])
        results.append((output, *gradients))
    for expected, found in zip(*results, strict=True):
        assert expected.abs().max() > 0.01
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("way", WAYS)
def test_experts_that_nobody_chose_and_one_that_all_chose(way):
    experts = Experts(tiny(), PlainPrecision())
    randomise(experts, 0)
    x, _, gates = _case(150)
    for chosen in (torch.full((150, 2), 3), torch.tensor([[7, 0]] * 150)):
        expected = experts(x, chosen, gates)
        found = way(x, chosen, gates, experts.gate_up.weight, experts.down.weight)
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)


def test_a_layout_by_hand():
    # Blocks of 2 rows. Choices in order: experts 1, 0, 1, 1. Expert 0 has one row (block 0, one place empty), expert 1 three
    # (blocks 1 and 2, one place empty), expert 2 none. Choice 1 takes place 0; choices 0, 2, 3 take places 2, 3, 4.
    blocks = lay_out(torch.tensor([[1, 0], [1, 1]]), n_experts=3, block_rows=2)
    assert blocks.place_of_choice.tolist() == [2, 0, 3, 4]
    assert blocks.choice_of_place.tolist() == [1, 4, 0, 2, 3, 4, 4, 4, 4, 4]  # 4: nobody's
    assert blocks.expert_of_block.tolist() == [0, 1, 1, 2, 2]


@pytest.mark.parametrize("seed", range(20))
def test_every_choice_has_a_place_of_its_own_in_a_block_of_its_expert(seed):
    generator = torch.Generator().manual_seed(seed)
    n_experts = int(torch.randint(1, 12, (), generator=generator))
    chosen = torch.randint(n_experts, (int(torch.randint(1, 60, (), generator=generator)), 3), generator=generator)
    blocks = lay_out(chosen, n_experts, block_rows=8)
    assert len(set(blocks.place_of_choice.tolist())) == chosen.numel()
    assert torch.equal(blocks.expert_of_block[blocks.place_of_choice // 8], chosen.flatten())
    assert torch.equal(blocks.choice_of_place[blocks.place_of_choice], torch.arange(chosen.numel()))


def test_padding_gets_no_gradient_and_gives_none():
    """A weight's gradient in which padding rows took part would depend on the size of a block."""
    x, chosen, gates = _case(5)
    gate_up, down = normal(8, 32, 32, seed=4).requires_grad_(), normal(8, 16, 32, seed=5).requires_grad_()
    output = blocked_experts(x, chosen, gates, gate_up, down)
    found = torch.autograd.grad(output.sum(), gate_up)[0]
    untouched = sorted(set(range(8)) - set(chosen.flatten().tolist()))
    assert untouched and found[untouched].abs().max() == 0.0
