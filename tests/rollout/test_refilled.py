"""Places that are filled again: the tokens of waves, in fewer steps, with a cache as wide as the rows at work need."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from r1_lightning.model import kv_cache
from r1_lightning.model.backbone import DeepSeekBackbone
from r1_lightning.model.config import ModelConfig
from r1_lightning.model.gqa import GQAKind
from r1_lightning.model.kv_cache import LatentKVCache
from r1_lightning.rollout import refilled as module
from r1_lightning.rollout.refilled import Refilled, RefillingSampler
from r1_lightning.rollout.sampler import Sampler, SamplerSettings, SamplingConfig
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.tensors import Generation
from tests.model.tiny import backbone, random_documents, tiny
from tests.rollout.fakes import MarkovBackbone, keys_of

SHAPE = tiny(vocab_size=12, n_layers=3, max_positions=96)
HEADS = ModelConfig(vocab_size=12, d_model=32, n_layers=3, n_dense_layers=1, n_heads=4, d_ff_dense=40, d_ff_expert=16,
                    n_routed_experts=8, n_shared_experts=1, n_activated_experts=2, max_positions=96,
                    attention_kind=GQAKind(2, 8))  # fmt: skip
EOS, PAD = 10, 11
PROMPTS = random_documents([7, 2, 4, 1, 11, 3], 10, seed=3)
COPIES = 6


def both(model: Any, limit: int = 40, max_rows: int = 8, top_p: float = 1.0) -> tuple[Sampler, Sampler]:
    sampling = SamplingConfig(max_new_tokens=limit, top_p=top_p)
    settings = SamplerSettings(sampling, [EOS], PAD, 7, max_rows=max_rows, record_routes=True)
    return Sampler(model, settings), Refilled()(model, settings)  # type: ignore[return-value]


def check_same(found: Generation, expected: Generation) -> None:
    for field in dataclasses.fields(Generation):
        one, other = getattr(found, field.name), getattr(expected, field.name)
        torch.testing.assert_close(one, other, atol=1e-4 if one.is_floating_point() else 0, rtol=0)


@pytest.fixture
def widths(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Rows and columns of the cache at every step of one column; room comes in blocks of 8."""
    monkeypatch.setattr(module, "COLUMN_BLOCK", 8)
    seen: list[tuple[int, int]] = []
    advance = LatentKVCache.advance

    def watched(cache: LatentKVCache, is_token: Any, has_rows: bool = True) -> Any:
        if is_token.shape[1] == 1:
            seen.append((cache.rows, cache.mask.shape[1]))
        return advance(cache, is_token, has_rows)

    monkeypatch.setattr(LatentKVCache, "advance", watched)
    return seen


@pytest.mark.parametrize("config", [SHAPE, HEADS], ids=["latents", "heads"])
@pytest.mark.parametrize(("max_rows", "top_p"), [(1, 1.0), (5, 0.8), (8, 1.0), (13, 1.0), (100, 0.8)])
def test_tokens_are_those_of_waves(config: Any, max_rows: int, top_p: float, widths: list[tuple[int, int]]) -> None:
    """36 rows of 1 to 14 tokens, whose prompts have 1 to 11; routes, too."""
    waves, pool = both(backbone(config), 14, max_rows, top_p)
    keys, done = keys_of(len(PROMPTS), COPIES), []
    expected = waves(PROMPTS, COPIES, keys)
    widths.clear()
    check_same(pool(PROMPTS, COPIES, keys, progress=done.append), expected)
    lengths = expected.completion_mask.sum(1).tolist()
    assert len(set(lengths)) > 8 and not bool(expected.finished.all())  # the cases were there
    assert sum(done) == 36
    assert max(rows for rows, _ in widths) == min(max_rows, 36)


def test_fewer_steps_and_a_narrow_cache(widths: list[tuple[int, int]]) -> None:
    """A prompt takes up to 11 columns and a completion 40; waves give all rows 51, and end one after another."""
    waves, pool = both(backbone(SHAPE))
    keys = keys_of(len(PROMPTS), COPIES)
    waves(PROMPTS, COPIES, keys)
    in_waves = list(widths)
    widths.clear()
    found = pool(PROMPTS, COPIES, keys)
    assert len(widths) < 0.8 * len(in_waves)
    longest = int(found.completion_mask.sum(1).max())
    assert max(columns for _, columns in widths) <= 11 + longest + 8
    assert sum(columns for _, columns in widths) / len(widths) < 45


def test_looked_at_seldom_and_in_blocks_the_tokens_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU: ended rows stay for some tokens, and the cache is read in blocks."""
    waves, pool = both(backbone(SHAPE))
    keys = keys_of(len(PROMPTS), COPIES)
    expected = waves(PROMPTS, COPIES, keys)
    monkeypatch.setattr(module, "tokens_per_look", lambda device: 5)
    monkeypatch.setattr(kv_cache, "columns_per_block", lambda device: 8)
    monkeypatch.setattr(kv_cache.StepGraph, "is_possible", False)
    check_same(pool(PROMPTS, COPIES, keys), expected)
    check_same(pool(PROMPTS, COPIES, keys, 1), waves(PROMPTS, COPIES, keys, 1))


def test_no_prompt_is_no_row_and_the_model_is_given_back() -> None:
    model = backbone(SHAPE).train()
    _, pool = both(model)
    assert pool([], 3, keys_of(0, 3).reshape(0, 3)).completion_ids.shape == (0, 0)
    assert pool.backbone is model and model.training


@pytest.mark.parametrize("model", [MarkovBackbone(torch.zeros(4, 4)),
                                   tiny(n_layers=4, attention_kind="lightning", softmax_attention_every=4)])  # fmt: skip
def test_a_cache_that_cannot_be_moved_is_refused(model: Any) -> None:
    made = model if isinstance(model, MarkovBackbone) else DeepSeekBackbone(model)
    with pytest.raises(InvalidInput, match="rollout=refilled moves the columns of our own cache"):
        RefillingSampler(made, SamplerSettings(SamplingConfig(), [EOS], PAD, 7))
