"""splitmix64 against its published numbers, and draws that belong to their key and to nothing else."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from r1_lightning.rollout.keyed_random import _mix, keyed_seeds, keyed_uniforms

MASK = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15


def splitmix64(x: int) -> int:
    """The step as it is printed (Steele, Lea and Flood 2014; Vigna's splitmix64.c), in whole numbers of Python."""
    z = (x + GOLDEN) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def signed(x: int) -> int:
    """The same 64 bits as a signed number, which is what torch holds."""
    x &= MASK
    return x - 2**64 if x >= 2**63 else x


def some_keys(rollouts: int = 3, prompts: int = 8, samples: int = 16) -> Tensor:
    return torch.cartesian_prod(torch.arange(rollouts), torch.arange(prompts), torch.arange(samples))


@pytest.mark.parametrize(
    ("seed", "published"),
    [
        (0, [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F, 0xF88BB8A8724C81EC]),
        (1234567, [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]),
    ],
)
def test_published_sequences_of_splitmix64(seed: int, published: list[int]) -> None:
    """The generator's state grows by the golden ratio; output k is the hash of seed + k * golden."""
    states = torch.tensor([signed(seed + k * GOLDEN) for k in range(4)])
    assert [number & MASK for number in _mix(states).tolist()] == published
    assert [splitmix64(seed + k * GOLDEN) for k in range(4)] == published


@pytest.mark.parametrize("seed", [0, 1, 2**31, 2**62])
def test_draws_against_plain_integers(seed: int) -> None:
    """hash(seed), then hash(state ^ part) for each part of the key, then twice for the position; the upper 24 bits."""
    keys = [[0, 0, 0], [1, 2, 3], [2**31, 499, 15], [7, 7, 7]]
    drawn = keyed_uniforms(seed, torch.tensor(keys), 5)
    assert drawn.dtype == torch.float32
    for row, key in enumerate(keys):
        state = splitmix64(seed)
        for part in key:
            state = splitmix64(state ^ part)
        expected = [(splitmix64(splitmix64(state ^ position)) >> 40) / 2**24 for position in range(5)]
        assert drawn[row].tolist() == expected  # 24 bits: exact in FP32


def test_pinned_numbers() -> None:
    """Another hash would change every rollout that was ever drawn."""
    assert keyed_uniforms(0, torch.tensor([[0, 0, 0]]), 3)[0].tolist() == [
        0.7961956262588501,
        0.41755741834640503,
        0.8287263512611389,
    ]


def test_uniform_in_64_classes() -> None:
    """393,216 draws, 6,144 expected in each class; chi-square of 63 degrees of freedom is above 103.4 once in 1,000."""
    drawn = keyed_uniforms(5, some_keys(), 1_024).flatten()
    assert drawn.min() >= 0.0 and drawn.max() < 1.0
    counts = torch.histc(drawn, bins=64, min=0.0, max=1.0)
    expected = drawn.numel() / 64
    assert float(((counts - expected) ** 2 / expected).sum()) < 103.4


def test_every_bit_is_fair() -> None:
    """Of n draws each of the 24 bits is set n/2 times, give or take 4.5 standard deviations of sqrt(n)/2."""
    drawn = (keyed_uniforms(6, some_keys(), 256).flatten() * 2**24).long()
    n = drawn.numel()
    for bit in range(24):
        ones = int(((drawn >> bit) & 1).sum())
        assert abs(ones - n / 2) < 4.5 * math.sqrt(n) / 2, bit


def _correlation(x: Tensor, y: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([x.flatten(), y.flatten()]))[0, 1])


@pytest.mark.parametrize("part", [0, 1, 2])
def test_neighbours_have_nothing_in_common(part: int) -> None:
    """Keys that differ by one in one part; 98,304 pairs, so a correlation is within 5 / sqrt(98,304) = 0.016 of 0."""
    keys = some_keys()
    beside = keys.clone()
    beside[:, part] += 1
    assert abs(_correlation(keyed_uniforms(1, keys, 256), keyed_uniforms(1, beside, 256))) < 0.016


def test_neighbouring_positions_and_seeds_have_nothing_in_common() -> None:
    drawn = keyed_uniforms(1, some_keys(), 257)
    assert abs(_correlation(drawn[:, 1:], drawn[:, :-1])) < 0.016
    assert abs(_correlation(drawn, keyed_uniforms(2, some_keys(), 257))) < 0.016


def test_no_key_draws_what_another_draws() -> None:
    """3 x 8 x 16 keys and their reversals, whose parts are the same numbers in another order."""
    keys = torch.cat([some_keys(), some_keys().flip(1)]).unique(dim=0)
    rows = keyed_uniforms(0, keys, 8)
    assert len(rows.unique(dim=0)) == len(keys)


def test_a_draw_depends_on_its_key_and_position_alone() -> None:
    keys = some_keys()
    drawn = keyed_uniforms(9, keys, 20)
    order = torch.randperm(len(keys), generator=torch.Generator().manual_seed(0))
    assert torch.equal(keyed_uniforms(9, keys[order], 20), drawn[order])
    assert torch.equal(keyed_uniforms(9, keys[37:38], 20), drawn[37:38])
    assert torch.equal(keyed_uniforms(9, keys, 7), drawn[:, :7])
    assert torch.equal(keyed_uniforms(9, keys.int(), 20), drawn)
    assert keyed_uniforms(9, keys[:0], 20).shape == (0, 20)


def test_the_global_generator_plays_no_part() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = keyed_uniforms(0, some_keys(), 4)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert torch.equal(keyed_uniforms(0, some_keys(), 4), first)


@pytest.mark.parametrize("seed", [0, 1, 2**31, 2**62])
def test_seeds_against_plain_integers(seed: int) -> None:
    """hash(seed), then hash(state ^ part) for each part of the key, then once more; the upper 63 bits."""
    keys = [[0, 0, 0], [1, 2, 3], [2**31, 499, 15], [7, 7, 7]]
    for key, found in zip(keys, keyed_seeds(seed, torch.tensor(keys)), strict=True):
        state = splitmix64(seed)
        for part in key:
            state = splitmix64(state ^ part)
        assert found == splitmix64(state) >> 1


def test_seeds_belong_to_their_keys_and_are_never_negative() -> None:
    """384 rows; a seed of -1 would mean "none" to vLLM."""
    keys = some_keys()
    seeds = keyed_seeds(3, keys)
    assert len(set(seeds)) == len(keys) and min(seeds) >= 0 and max(seeds) >= 2**62
    order = torch.randperm(len(keys), generator=torch.Generator().manual_seed(0))
    assert keyed_seeds(3, keys[order]) == [seeds[row] for row in order.tolist()]
    assert not set(seeds) & set(keyed_seeds(4, keys))
