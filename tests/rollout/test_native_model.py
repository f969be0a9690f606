"""Layouts of the native decoder, and that nothing of a row depends on its neighbours, on chunks or on threads."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from r1_lightning.rollout import native_model
from r1_lightning.rollout.native_build import library
from r1_lightning.rollout.native_model import NativeModel, NativeWave, in_blocks, in_panels, rows_at_once
from r1_lightning.rollout.sampler import left_padded
from tests.model.tiny import backbone, normal, tiny

CONFIG = tiny(
    n_expert_groups=1, n_limited_groups=1, n_routed_experts=8, n_activated_experts=2, vocab_size=50, max_positions=128
)
PROMPTS = [[1, 2, 3], [4] * 20, [5, 6], [7] * 33]


def test_panels_by_hand() -> None:
    """3 outputs x 2 inputs in panels of 2: the second panel is filled up with a zero output."""
    weight = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    assert in_panels(weight, 2).tolist() == [[[1, 3], [2, 4]], [[5, 0], [6, 0]]]


def test_blocks_by_hand() -> None:
    """3 columns of width 2 in blocks of 2: inside a block the columns are side by side."""
    columns = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]])
    assert in_blocks(columns, 2).tolist() == [[[[1, 3], [2, 4]], [[5, 0], [6, 0]]]]


def test_many_experts_need_many_rows() -> None:
    few, many = tiny(n_routed_experts=8, n_activated_experts=2), tiny(n_routed_experts=256, n_activated_experts=8)
    assert (rows_at_once(few), rows_at_once(many)) == (64, 384)


def drawn(rows: list[int], steps: int = 20, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens and log-probs of the rows `rows`, of which row i continues prompt i % 4, and the last step's routes."""
    model = backbone(CONFIG)
    native = NativeModel(library(), model)
    token_ids, is_token = left_padded(PROMPTS, 0)
    cache = model.new_cache(*token_ids.shape)
    model.step(token_ids, is_token, cache)
    wave = NativeWave(native, cache.states, is_token, torch.tensor([row % 4 for row in rows]), steps)
    uniforms = torch.rand(64, steps, generator=torch.Generator().manual_seed(seed))[rows]
    active, token, found = torch.arange(len(rows)), torch.tensor([row % 50 for row in rows]), []
    for column in range(steps):
        step = wave.step(active, token, column, uniforms[:, column], 0.9)
        token = step.token
        found.append(step)
    tokens, logprobs = (torch.stack([getattr(step, name) for step in found], 1) for name in ("token", "logprob"))
    return tokens, logprobs, found[-1].routes


def test_a_row_does_not_depend_on_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """To the last bit: alone, among 64, in chunks of 5, and on two threads."""
    whole = drawn(list(range(64)))
    for rows in ([17], [3, 40, 63], list(range(13))):
        for all_rows, few in zip((whole[0], whole[1], whole[2].transpose(0, 1)), drawn(rows), strict=True):
            assert torch.equal(all_rows[rows], few if few.dim() == 2 else few.transpose(0, 1))
    monkeypatch.setattr(native_model, "rows_at_once", lambda config: 5)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        again = drawn(list(range(64)))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(whole, again, strict=True))


def test_hidden_states_are_those_of_the_models_own_step() -> None:
    model = backbone(CONFIG)
    token_ids, is_token = left_padded(PROMPTS, 0)
    cache, own = model.new_cache(len(PROMPTS), 40), model.new_cache(len(PROMPTS), 33)
    for kept in (cache, own):
        model.step(token_ids, is_token, kept)
    wave = NativeWave(NativeModel(library(), model), own.states, is_token, torch.arange(4), 3)
    for column in range(3):
        token = torch.tensor([1, 2, 3, 4]) + column
        expected = model.step(token[:, None], torch.ones(4, 1, dtype=torch.bool), cache)
        hidden, routes = wave.hidden(torch.arange(4), token, column)
        torch.testing.assert_close(hidden, expected.hidden[:, 0], atol=2e-5, rtol=1e-5)
        assert torch.equal(routes, expected.routes[:, :, 0])


def test_the_numbers_are_those_of_a_plain_softmax_over_several_tiles() -> None:
    """Width 16, 5,000 tokens: three tiles. The draw is the inverse of the cumulative distribution, its log-prob the softmax's."""
    model = backbone(tiny(**{**vars(CONFIG), "vocab_size": 5000}))
    token_ids, is_token = left_padded([[1, 2]], 0)
    cache, own = model.new_cache(1, 3), model.new_cache(1, 2)
    for kept in (cache, own):
        model.step(token_ids, is_token, kept)
    hidden = model.step(torch.tensor([[3]]), torch.ones(1, 1, dtype=torch.bool), cache).hidden[:, 0]
    logprobs = (model.unembed(hidden) / 0.7).double().log_softmax(-1)[0]
    cumulative = logprobs.exp().cumsum(0)
    rows = 200
    uniforms = torch.linspace(0.001, 0.999, rows)
    wave = NativeWave(NativeModel(library(), model), own.states, is_token, torch.zeros(rows, dtype=torch.long), 1)
    step = wave.step(torch.arange(rows), torch.full((rows,), 3), 0, uniforms, 0.7)
    expected = (cumulative <= uniforms[:, None].double()).sum(1)
    distance = (
        (cumulative[expected] - uniforms.double()).abs().minimum((cumulative[expected - 1] - uniforms.double()).abs())
    )
    assert torch.equal(step.token[distance > 1e-6], expected[distance > 1e-6])
    assert step.token.unique().numel() > 100 and bool((step.token > 4096).any())
    torch.testing.assert_close(step.logprob.double(), logprobs[step.token], atol=1e-5, rtol=0)


def test_nan_stays_nan() -> None:
    model = backbone(CONFIG)
    with torch.no_grad():
        model.blocks[0].attention.out.weight[0, 0] = float("nan")
    wave = NativeWave(
        NativeModel(library(), model),
        [normal(1, 2, CONFIG.cache_width) for _ in range(CONFIG.n_layers)],
        torch.ones(1, 2, dtype=torch.bool),
        torch.tensor([0]),
        1,
    )
    step = wave.step(torch.tensor([0]), torch.tensor([3]), 0, torch.tensor([0.5]), 1.0)
    assert step.token.tolist() == [0] and bool(step.logprob.isnan())
