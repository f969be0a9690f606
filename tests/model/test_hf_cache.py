"""Keys and values of `transformers` in memory that was taken before: columns, rows, and the logits of its own cache."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from r1_lightning.model import kv_cache
from r1_lightning.model.hf_cache import HFCache
from r1_lightning.model.hf_model import HFBackbone, HFModelConfig
from tests.model.tiny import left_pad, random_documents, randomise
from tests.support.hf_folders import DENSE

BLOCK = 8


def model(kind: str) -> HFBackbone:
    made = HFBackbone(HFModelConfig({"model_type": kind, **DENSE, "vocab_size": 61})).eval()
    randomise(made, 3)
    return made


@torch.no_grad()
def steps(backbone: HFBackbone) -> tuple[Tensor, Any]:
    """Hidden states of three prompts, and of six tokens of the first, its copy and the last."""
    cache, prompts = backbone.new_cache(3, 20), random_documents((9, 1, 12), 61, seed=3)
    found = [backbone.step(*left_pad(prompts), cache).hidden[:, -1]]
    cache.select_rows(torch.tensor([0, 0, 2]))
    for token in range(6):
        ids = torch.tensor([[token], [token + 9], [7]])
        found.append(backbone.step(ids, torch.ones(3, 1, dtype=torch.bool), cache).hidden[:, 0])
    return torch.stack(found), cache


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
def test_the_numbers_are_those_of_the_librarys_cache(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = model(kind)
    expected, grown = steps(backbone)
    monkeypatch.setattr(kv_cache, "columns_per_block", lambda device: BLOCK)
    monkeypatch.setattr(kv_cache.StepGraph, "is_possible", False)
    found, cache = steps(backbone)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)
    assert len(set(found[:, 0].sum(1).tolist())) == 7
    # 2 layers x keys and values x 3 rows x 2 heads x 8 numbers of 4 bytes: 18 columns so far, and 20 from the beginning
    assert grown.bytes == 2 * 2 * 3 * 2 * 8 * 4 * 18 and cache.bytes == 2 * 2 * 3 * 2 * 8 * 4 * 20


def test_nothing_is_copied_when_a_token_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kv_cache, "columns_per_block", lambda device: BLOCK)
    cache = HFCache(1, 12, torch.device("cpu"))
    places = set()
    for column in range(10):
        cache.advance(torch.ones(1, 1, dtype=torch.bool))
        cache.columns = cache.newest(1)
        keys, values = cache.keys_and_values.update(*[torch.full((1, 1, 1, 2), float(column))] * 2, 0)
        assert keys.shape == values.shape == (1, 1, 8 if column < 8 else 12, 2)
        assert keys[0, 0, : column + 1, 0].tolist() == list(range(column + 1))
        assert cache.keys_and_values.get_seq_length() == column + 1
        places.add(keys.data_ptr())
    assert len(places) == 1
