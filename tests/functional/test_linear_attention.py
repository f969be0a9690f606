"""Linear attention block by block against all pairs (eq 4) and against the recurrence (eq 5), each with a decay."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from r1_lightning.functional.linear_attention import (
    block_length,
    block_plan,
    decay_slopes,
    document_segments,
    linear_attention,
)

INF = math.inf
# Two documents and padding; a document that begins with the row's second block of 4; padding first, as prompts have it.
ROWS = torch.tensor([[1] * 6 + [2] * 4 + [0] * 3, [1] * 4 + [2] * 9, [0] * 5 + [1] * 8])
HEADS, WIDTH = 3, 5
SLOPES = torch.tensor([0.9, 0.2, 1e-3], dtype=torch.float64)


def _inputs(rows: int = 3, length: int = 13, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(rows, length, HEADS, WIDTH, generator=generator, dtype=torch.float64) for _ in range(3)]


def _by_blocks(inputs: list[Tensor], ids: Tensor, block: int, slopes: Tensor = SLOPES) -> Tensor:
    return linear_attention(*inputs, slopes, block_plan(document_segments(ids), ids > 0, block))[0]


def _by_pairs(inputs: list[Tensor], ids: Tensor, slopes: Tensor = SLOPES) -> Tensor:
    """O = [(Q K^T) * M] V with M = exp(-s d) for d tokens back in the same document, and 0 elsewhere."""
    q, k, v = inputs
    o = torch.zeros_like(v)
    for b, ids_T in enumerate(ids.tolist()):
        for t, document in enumerate(ids_T):
            for j in range(t + 1):
                if document == ids_T[j] != 0:
                    weight = torch.exp(-slopes * (t - j)) * (q[b, t] * k[b, j]).sum(-1)
                    o[b, t] += weight[:, None] * v[b, j]
    return o


def _by_steps(inputs: list[Tensor], is_token: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """S_t = exp(-s) S_(t-1) + k_t v_t^T, o_t = q_t S_t; padding is passed over."""
    q, k, v = inputs
    o, state = torch.zeros_like(v), state.clone()
    for b in range(len(q)):
        for t in range(q.shape[1]):
            if is_token[b, t]:
                state[b] = torch.exp(-SLOPES)[:, None, None] * state[b] + k[b, t, :, :, None] * v[b, t, :, None, :]
                o[b, t] = torch.einsum("nh,nhu->nu", q[b, t], state[b])
    return o, state


# --------------------------------------------------------------------------------------------------- literal numbers


def test_plan_of_the_docstring():
    plan = block_plan(torch.tensor([[0, 0, 1]]), torch.ones(1, 3, dtype=torch.bool), 3)
    assert plan.inside.tolist() == [[[[0, INF, INF], [1, 0, INF], [INF, INF, 0]]]]
    assert plan.before.tolist() == [[[1, 2, INF]]]
    assert plan.after.tolist() == [[[INF, INF, 0]]]
    assert plan.across.tolist() == [[[0, INF], [INF, 0]]]


def test_plan_of_several_blocks_and_padding():
    """Tokens a b | - c | d and a place that only fills the last block: padding counts for nothing."""
    plan = block_plan(torch.zeros(1, 5, dtype=torch.long), torch.tensor([[True, True, False, True, True]]), 2)
    assert plan.inside.tolist() == [[[[0, INF], [1, 0]], [[INF, INF], [INF, 0]], [[0, INF], [INF, INF]]]]
    assert plan.before.tolist() == [[[1, 2], [INF, 1], [1, INF]]]
    assert plan.after.tolist() == [[[1, 0], [INF, 0], [0, INF]]]
    assert plan.across.tolist() == [[[0, INF, INF, INF], [2, 0, INF, INF], [3, 1, 0, INF], [4, 2, 1, 0]]]


def test_segments_literal():
    assert document_segments(torch.tensor([[1, 1, 2, 0, 0], [0, 3, 3, 1, 1]])).tolist() == [
        [0, 0, 1, 2, 2],
        [0, 1, 1, 2, 2],
    ]


def test_blocks_are_alike_and_as_few_as_may_be():
    assert [block_length(length, 64) for length in (1, 63, 64, 65, 81, 128, 129)] == [1, 63, 64, 33, 41, 64, 43]


@pytest.mark.parametrize("block", [1, 2, 3, 64])
def test_literal_numbers(block):
    """One head of width 1, s = ln 2, q = k = 1: values 1, 2, 4 sum to 1; 1/2 + 2 = 2.5; 2.5/2 + 4 = 5.25. Then a border."""
    ones = torch.ones(1, 4, 1, 1)
    v = torch.tensor([1.0, 2.0, 4.0, 8.0]).view(1, 4, 1, 1)
    plan = block_plan(torch.tensor([[0, 0, 0, 1]]), torch.ones(1, 4, dtype=torch.bool), block)
    o, state = linear_attention(ones, ones, v, torch.tensor([math.log(2)]), plan)
    torch.testing.assert_close(o.flatten(), torch.tensor([1.0, 2.5, 5.25, 8.0]))
    torch.testing.assert_close(state.flatten(), torch.tensor([8.0]))


def test_slopes_literal():
    """8 heads: 1/2, 1/4, ..., 1/256; the last of 5 layers keeps a factor of 1e-5 + 1e-5 / 4, nearly."""
    first, last = decay_slopes(8, 0, 5), decay_slopes(8, 4, 5)
    torch.testing.assert_close(first, (1 + 1e-5) * torch.tensor([2.0**-h for h in range(1, 9)]))
    torch.testing.assert_close(last / first, torch.full((8,), 1.25e-5), rtol=1e-2, atol=0)
    assert float(decay_slopes(4, 0, 1)[0]) == pytest.approx(0.25, rel=1e-4)  # a single layer divides by nothing
    assert min(float(decay_slopes(64, layer, 80).min()) for layer in range(80)) > 0


# ------------------------------------------------------------------------------------------- independent references


@pytest.mark.parametrize("block", [1, 2, 4, 5, 13, 64])
def test_blocks_equal_all_pairs_whatever_their_size(block):
    inputs = _inputs()
    torch.testing.assert_close(_by_blocks(inputs, ROWS, block), _by_pairs(inputs, ROWS), atol=1e-6, rtol=0)


@pytest.mark.parametrize("block", [1, 3, 64])
@pytest.mark.parametrize("cuts", [(), (5,), (1, 2, 3, 9), tuple(range(1, 13))])
def test_pieces_that_pass_the_state_on_equal_the_recurrence(block, cuts):
    """Padding before, between and behind tokens; one position at a time is eq 5, several are blocks."""
    inputs = _inputs()
    is_token = torch.tensor(
        [[True] * 13, [False] * 4 + [True] * 9, [True, True, False, False, True] + [True, False] * 4]
    )
    entering = torch.randn(3, HEADS, WIDTH, WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected, last = _by_steps(inputs, is_token, entering)
    outputs, state = [], entering
    for start, stop in zip((0, *cuts), (*cuts, 13), strict=True):
        plan = block_plan(torch.zeros(3, stop - start, dtype=torch.long), is_token[:, start:stop], block)
        o, state = linear_attention(*(x[:, start:stop] for x in inputs), SLOPES, plan, state)
        outputs.append(o)
    torch.testing.assert_close(torch.cat(outputs, 1), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(state, last, atol=1e-6, rtol=0)


def test_without_a_decay_it_is_the_papers_equation():
    """Eq 4: [(Q K^T) * M] V, M of ones and zeros."""
    q, k, v = inputs = _inputs()
    ones = torch.ones(3, 13, dtype=torch.long)
    scores = torch.einsum("btnh,bjnh->bntj", q, k).tril()
    expected = torch.einsum("bntj,bjnh->btnh", scores, v)
    found = _by_blocks(inputs, ones, 4, slopes=torch.full((HEADS,), 1e-12, dtype=torch.float64))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_gradients():
    slopes = SLOPES[:2]
    inputs = [x[:, :, :2, :2].clone().requires_grad_() for x in _inputs(2, 7)]
    ids = torch.tensor([[1, 1, 1, 2, 2, 0, 0], [1, 2, 2, 2, 2, 2, 2]])
    plan = block_plan(document_segments(ids), ids > 0, 3)
    assert torch.autograd.gradcheck(lambda *qkv: linear_attention(*qkv, slopes, plan)[0], inputs)
    state = torch.ones(2, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    alone = [x[:, :1].detach().requires_grad_() for x in inputs]
    one = block_plan(torch.zeros(2, 1, dtype=torch.long), torch.ones(2, 1, dtype=torch.bool), 3)
    assert torch.autograd.gradcheck(lambda q, k, v, s: linear_attention(q, k, v, slopes, one, s), (*alone, state))


# ---------------------------------------------------------------------------------------------------------- properties


@pytest.mark.parametrize("block", [4, 64])
def test_borders_and_padding_are_exactly_opaque(block):
    """What a document's outputs say of other places is 0, not small, and steep slopes make no NaN of it."""
    inputs = [x.requires_grad_() for x in _inputs()]
    slopes = torch.tensor([50.0, 0.5, 1e-9], dtype=torch.float64)
    o = _by_blocks(inputs, ROWS, block, slopes)
    assert o[ROWS == 0].abs().max() == 0.0
    o[ROWS == 2].square().sum().backward()
    for x in inputs:
        influence = x.grad.abs().amax((-1, -2))
        assert influence[ROWS != 2].max() == 0.0
        assert influence[ROWS == 2].min() > 0.0


def test_later_tokens_do_not_matter():
    inputs = [x.requires_grad_() for x in _inputs(1)]
    _by_blocks(inputs, torch.ones(1, 13, dtype=torch.long), 4)[0, 6].sum().backward()
    assert all(x.grad[0, 7:].abs().max() == 0.0 for x in inputs)
    assert all(x.grad[0, :7].abs().amax((-1, -2)).min() > 0.0 for x in inputs[1:])


def test_rows_do_not_know_of_each_other():
    inputs = _inputs()
    one_by_one = [_by_blocks([x[i : i + 1] for x in inputs], ROWS[i : i + 1], 4) for i in range(3)]
    torch.testing.assert_close(torch.cat(one_by_one), _by_blocks(inputs, ROWS, 4), atol=1e-12, rtol=0)


def test_the_state_is_fp32_whatever_the_inputs_are():
    q, k, v = (x.bfloat16() for x in _inputs())
    plan = block_plan(document_segments(ROWS), ROWS > 0, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        o, state = linear_attention(q, k, v, SLOPES.float(), plan)
        one = block_plan(torch.zeros(3, 1, dtype=torch.long), torch.ones(3, 1, dtype=torch.bool), 4)
        next_o, next_state = linear_attention(q[:, :1], k[:, :1], v[:, :1], SLOPES.float(), one, state)
    assert (o.dtype, next_o.dtype) == (torch.bfloat16, torch.bfloat16)
    assert (state.dtype, next_state.dtype) == (torch.float32, torch.float32)
