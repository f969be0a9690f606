"""The latent cache: its size, its masks and positions, and its rows."""

from __future__ import annotations

import pytest
import torch

from r1_lightning.model.backbone import DeepSeekBackbone
from r1_lightning.model.kv_cache import LatentKVCache, append_columns
from r1_lightning.model.precision import PlainPrecision
from r1_lightning.types.errors import InvalidInput
from tests.model.test_config import V3
from tests.model.tiny import backbone, normal, tiny
from tests.support.memory import LiveTensors


def _cache(rows: int = 2, max_tokens: int = 8, layers: int = 2, width: int = 3) -> LatentKVCache:
    states = [torch.zeros(rows, max_tokens, width) for _ in range(layers)]
    return LatentKVCache(states, rows, max_tokens, torch.device("cpu"))


def append(cache: LatentKVCache, layer: int, new: torch.Tensor) -> torch.Tensor:
    return append_columns(cache.states[layer], new, cache.length - new.shape[1])


def test_bytes_of_v3():
    # 512 + 64 = 576 elements per token and layer, 61 layers: 35,136 elements, two bytes each in BF16: 70,272 bytes.
    states = [torch.zeros(2, 10, V3.cache_width, dtype=torch.bfloat16) for _ in range(V3.n_layers)]
    cache = LatentKVCache(states, 2, 10, torch.device("cpu"))
    assert cache.bytes == 2 * 10 * 70_272
    # Keys and values of 128 heads (192 and 128 wide) would take 40,960 elements per token and layer, 71 times as much
    assert 128 * (V3.qk_head_dim + V3.v_head_dim) / V3.cache_width == pytest.approx(71.1, abs=0.05)


def test_bytes_of_a_backbones_cache():
    # 2 layers x 3 rows x 5 tokens x (16 + 4) elements x 4 bytes
    assert backbone().new_cache(3, 5).bytes == 2 * 3 * 5 * 20 * 4


def test_bytes_of_a_hybrids_cache():
    """3 lightning layers of 3 rows x 2 heads x 12 x 12 FP32 numbers, and one MLA layer of 3 x 5 x 20, in BF16 half as wide."""
    config = tiny(n_layers=4, attention_kind="lightning", softmax_attention_every=4)
    states = 3 * 3 * 2 * 12 * 12 * 4
    assert backbone(config).new_cache(3, 5).bytes == states + 3 * 5 * 20 * 4
    assert DeepSeekBackbone(config, PlainPrecision("bf16")).new_cache(3, 5).bytes == states + 3 * 5 * 20 * 2


def test_positions_and_masks_of_a_left_padded_prefill():
    cache = _cache()
    positions, attend = cache.advance(torch.tensor([[False, False, True], [True, True, True]]))
    assert positions.tolist() == [[0, 0, 0], [0, 1, 2]]
    assert attend.shape == (2, 1, 3, 3)
    # The first row's only token sees itself; the second row is plainly causal
    assert attend[0, 0].tolist() == [[False] * 3, [False] * 3, [False, False, True]]
    assert attend[1, 0].tolist() == [[True, False, False], [True, True, False], [True, True, True]]


def test_positions_and_masks_of_the_steps_after_it():
    cache = _cache()
    cache.advance(torch.tensor([[False, False, True], [True, True, True]]))
    positions, attend = cache.advance(torch.ones(2, 1, dtype=torch.bool))
    assert positions.tolist() == [[1], [3]]
    assert attend[:, 0].tolist() == [[[False, False, True, True]], [[True] * 4]]
    positions, attend = cache.advance(torch.ones(2, 2, dtype=torch.bool))
    assert positions.tolist() == [[2, 3], [4, 5]]
    assert attend[0, 0].tolist() == [[False, False, True, True, True, False], [False, False, True, True, True, True]]


def test_append_returns_everything_so_far_of_that_layer():
    cache, one, two = _cache(), normal(2, 3, 3, seed=1), normal(2, 1, 3, seed=2)
    cache.advance(torch.ones(2, 3, dtype=torch.bool))
    assert torch.equal(append(cache, 0, one), one)
    assert torch.equal(append(cache, 1, -one), -one)
    cache.advance(torch.ones(2, 1, dtype=torch.bool))
    assert torch.equal(append(cache, 0, two), torch.cat([one, two], 1))
    assert torch.equal(append(cache, 1, -two), -torch.cat([one, two], 1))


@pytest.mark.parametrize("rows", [[1, 1, 0, 1], [1], [0, 1], [1, 0]])
def test_select_rows_with_repeats(rows):
    cache, states = _cache(), normal(2, 3, 3)
    cache.advance(torch.tensor([[False, True, True], [True, True, True]]))
    append(cache, 0, states)
    cache.select_rows(torch.tensor(rows))
    n = len(rows)
    assert cache.rows == n
    assert cache.bytes == n * 2 * 8 * 3 * 4  # what has left takes no memory
    positions, attend = cache.advance(torch.ones(n, 1, dtype=torch.bool))
    assert positions[:, 0].tolist() == [{0: 2, 1: 3}[row] for row in rows]
    assert attend[:, 0, 0].tolist() == [[row == 1, True, True, True] for row in rows]
    new = normal(n, 1, 3, seed=4)
    assert torch.equal(append(cache, 0, new), torch.cat([states[rows], new], 1))


def test_repeated_rows_are_copies():
    cache = _cache()
    cache.advance(torch.ones(2, 1, dtype=torch.bool))
    append(cache, 0, normal(2, 1, 3))
    cache.select_rows(torch.tensor([0, 0]))
    cache.advance(torch.ones(2, 1, dtype=torch.bool))
    states = append(cache, 0, torch.stack([torch.ones(1, 3), torch.zeros(1, 3)]))
    assert states[:, 1].tolist() == [[1.0] * 3, [0.0] * 3]


def test_a_full_cache_says_so():
    cache = _cache(max_tokens=3)
    cache.advance(torch.ones(2, 2, dtype=torch.bool))
    cache.advance(torch.ones(2, 1, dtype=torch.bool))
    with pytest.raises(InvalidInput, match="max_tokens=3 is not allowed: 4 tokens are needed"):
        cache.advance(torch.ones(2, 1, dtype=torch.bool))


def test_selecting_rows_never_holds_two_caches():
    """8 layers of 6 x 100 x 3 numbers, 7,200 bytes each; of 5 rows they take 6,000, made one layer after the other."""
    with LiveTensors() as live:
        cache = _cache(rows=6, max_tokens=100, layers=8)
        cache.select_rows(torch.arange(5))
    assert cache.bytes == 8 * 6000
    assert 8 * 7200 + 6000 <= live.peak < 8 * 7200 + 2 * 6000
