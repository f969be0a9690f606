"""The latent cache: its size, its masks and positions, and its rows."""

from __future__ import annotations

import pytest
import torch

from r1_lightning.model.backbone import DeepSeekBackbone
from r1_lightning.model.kv_cache import LatentKVCache, append_columns, first_room, more_room
from r1_lightning.model.precision import PlainPrecision
from r1_lightning.types.errors import InvalidInput
from tests.model.test_config import V3
from tests.model.tiny import backbone, left_pad, normal, pack, random_documents, tiny
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


def test_a_forgotten_column_is_padding_and_gives_its_position_back():
    cache = _cache(rows=3)
    cache.advance(torch.tensor([[False, True], [True, True], [True, True]]))
    cache.advance(torch.tensor([[True, True], [True, True], [True, False]]))  # the last row has no second token
    cache.forget_newest(torch.tensor([True, False, True]))
    positions, attend = cache.advance(torch.ones(3, 1, dtype=torch.bool))
    assert positions[:, 0].tolist() == [2, 4, 3]
    assert attend[:, 0, 0].tolist() == [
        [False, True, True, False, True],
        [True, True, True, True, True],
        [True, True, True, False, True],
    ]


def test_closing_gaps_moves_tokens_to_the_right_in_their_order():
    cache = _cache(rows=3)
    cache.advance(torch.tensor([[True, False, True, False, True], [False, True, True, False, False], [False] * 5]))
    for layer, sign in enumerate((1, -1)):
        append(cache, layer, sign * torch.arange(15.0).view(3, 5, 1).expand(3, 5, 3))
    positions, room = cache.positions.clone(), cache.room
    cache.close_gaps()
    assert (room, cache.room, cache.length) == (3, 5, 3)
    assert torch.equal(cache.positions, positions)
    for state, sign in zip(cache.states, (1, -1), strict=True):
        assert (sign * state[0, :3, 0]).tolist() == [0, 2, 4]
        assert (sign * state[1, 1:3, 2]).tolist() == [6, 7]
    positions, attend = cache.advance(torch.ones(3, 1, dtype=torch.bool))
    assert positions[:, 0].tolist() == [3, 2, 0]
    assert attend[:, 0, 0].tolist() == [[True] * 4, [False, True, True, True], [False] * 3 + [True]]


def test_closing_an_empty_cache_changes_nothing():
    cache = _cache()
    cache.close_gaps()
    assert (cache.length, cache.room) == (0, 8)


@torch.no_grad()
def test_refused_columns_never_count():
    """Rows that take one or two of the columns fed to them say, at every token, what a plain forward over their text says."""
    model = backbone()
    texts, prompts = random_documents([13, 11, 12], 61, seed=5), [5, 2, 4]
    taken = [[2, 1, 2, 2, 1], [1, 2, 1, 2, 2], [1, 1, 2, 1, 2]]  # of each step's two columns
    expected = [model.hidden(pack([[text]]), with_mtp=False).hidden[0] for text in texts]
    for closing in (False, True):
        cache, done = model.new_cache(3, 5 + 2 * 5), list(prompts)
        model.step(*left_pad([text[:n] for text, n in zip(texts, prompts, strict=True)]), cache)
        for counts in zip(*taken, strict=True):
            refused = [60 - text[n + 1] if n + 1 < len(text) else 0 for text, n in zip(texts, done, strict=True)]
            seconds = [text[n + 1] if k == 2 else r for text, n, k, r in zip(texts, done, counts, refused, strict=True)]
            pair = torch.tensor([[text[n], other] for text, n, other in zip(texts, done, seconds, strict=True)])
            hidden = model.step(pair, torch.ones(3, 2, dtype=torch.bool), cache).hidden
            cache.forget_newest(torch.tensor([count == 1 for count in counts]))
            for row, count in enumerate(counts):
                there = expected[row][done[row] : done[row] + count]
                torch.testing.assert_close(hidden[row, :count], there, atol=1e-5, rtol=0)
                done[row] += count
            if closing:
                cache.close_gaps()
                assert cache.length == max(done)
    assert done == [13, 10, 11]


def test_rows_of_two_caches_end_in_one_column():
    """Columns 5 and 6 of three; one of four: the shorter move right, and what is new is free."""
    own, other = (LatentKVCache([torch.zeros(rows, 6, 1)], rows, 6, torch.device("cpu")) for rows in (2, 1))
    for value in (5.0, 6.0):
        own.advance(torch.tensor([[value == 6.0], [True]]))
        append_columns(own.states[0], torch.full((2, 1, 1), value), own.length - 1)
    for value in (1.0, 2.0, 3.0):
        other.advance(torch.ones(1, 1, dtype=torch.bool))
        append_columns(other.states[0], torch.full((1, 1, 1), value), other.length - 1)
    own.add_rows(other, room=2)
    assert own.states[0].squeeze(-1).tolist() == [[0, 5, 6, 0, 0], [0, 5, 6, 0, 0], [1, 2, 3, 0, 0]]
    assert own.mask.int().tolist() == [[0, 0, 1, 0, 0], [0, 1, 1, 0, 0], [1, 1, 1, 0, 0]]
    assert (own.positions.tolist(), own.length, own.room, own.rows) == ([1, 2, 3], 3, 2, 3)


def test_how_much_a_cache_grows_by_hand() -> None:
    # Blocks of 128: 28 + 100; a prompt that fills its block gets a whole one. 640 / 2 = 320 are two whole blocks.
    assert [first_room(28, 1000), first_room(256, 1000), first_room(28, 7)] == [100, 128, 7]
    assert [more_room(128, 1000), more_room(640, 1000), more_room(640, 9)] == [128, 256, 9]


def test_a_cache_grows_by_free_columns_and_recurrent_states_stay() -> None:
    matrix = normal(2, 2, 3, 3)
    cache = LatentKVCache([torch.zeros(2, 3, 1), matrix], 2, 3, torch.device("cpu"))
    for value in (1.0, 2.0):
        cache.advance(torch.tensor([[True], [value == 2.0]]))
        append_columns(cache.states[0], torch.full((2, 1, 1), value), cache.length - 1)
    cache.graphs = {3: None}  # type: ignore[dict-item]
    cache.grow(4)
    assert (cache.length, cache.room, cache.graphs) == (2, 4, {})
    assert cache.states[0].squeeze(-1).tolist() == [[1, 2, 0, 0, 0, 0]] * 2 and cache.states[1] is matrix
    assert cache.mask.int().tolist() == [[1, 1, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0]]
    positions, _ = cache.advance(torch.ones(2, 1, dtype=torch.bool))
    assert positions.tolist() == [[2], [1]]


def test_room_is_made_from_gaps_first():
    cache = LatentKVCache([torch.arange(4.0).expand(2, 4).unsqueeze(-1).clone()], 2, 4, torch.device("cpu"))
    for tokens in ([[True], [False]], [[False], [True]], [[True], [True]], [[False], [True]]):
        cache.advance(torch.tensor(tokens))
    cache.make_room(2)  # three columns of four are needed: one is half of two
    assert (cache.length, cache.room) == (3, 1)
    assert [row[mask].flatten().tolist() for row, mask in zip(cache.states[0], cache.mask, strict=True)] == [
        [0, 2],
        [1, 2, 3],
    ]
    cache.make_room(4)
    assert (cache.length, cache.room, cache.states[0].shape[1]) == (3, 4, 7)
    assert [row[mask].flatten().tolist() for row, mask in zip(cache.states[0], cache.mask, strict=True)] == [
        [0, 2],
        [1, 2, 3],
    ]
