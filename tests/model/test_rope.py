"""Rotary embedding and YaRN, with DeepSeek-V3's own numbers."""

from __future__ import annotations

import math

import pytest
import torch

from r1_lightning.model.config import YarnConfig
from r1_lightning.model.rope import rotary_frequencies, rotary_tables, rotate, softmax_scale, yarn_scale
from tests.model.tiny import hf_config, normal, tiny

V3_YARN = YarnConfig(factor=40.0, original_max_positions=4096)  # beta 32 and 1, both mscales 1


def test_yarn_scale_of_v3_and_v2():
    assert yarn_scale(40.0, 1.0) == pytest.approx(1.36889, abs=5e-6)  # 0.1 ln 40 + 1
    assert yarn_scale(40.0, 0.707) == pytest.approx(1.26080, abs=5e-6)  # 0.0707 ln 40 + 1
    assert yarn_scale(1.0, 1.0) == 1.0


def test_softmax_scale():
    # V3: 1 / sqrt(128 + 64) = 0.0721688; with YaRN times 1.3688879^2 = 1.8738543: 0.1352338
    assert softmax_scale(192, None) == pytest.approx(0.0721688, abs=1e-7)
    assert softmax_scale(192, V3_YARN) == pytest.approx(0.1352338, abs=1e-6)


def test_plain_frequencies():
    # theta^(-2i / d) for d = 4, theta = 10000: 1 and 1 / 100
    assert rotary_frequencies(4, 10000.0, None).tolist() == pytest.approx([1.0, 0.01], rel=1e-6)


def test_v3_ramp_runs_from_pair_10_to_pair_23():
    # 64 ln(4096 / (32 * 2 pi)) / (2 ln 10000) = 10.47 -> 10; 64 ln(4096 / (2 pi)) / (2 ln 10000) = 22.51 -> 23
    ratio = rotary_frequencies(64, 10000.0, V3_YARN) / rotary_frequencies(64, 10000.0, None)
    torch.testing.assert_close(ratio[:11], torch.ones(11), atol=1e-6, rtol=0)
    torch.testing.assert_close(ratio[23:], torch.full((9,), 1 / 40), atol=1e-6, rtol=0)
    # Between them the share of the divided frequency grows by 1/13 per pair: at pair 11: 1 - 1/13 * (1 - 1/40) = 0.925
    expected = [1 - step / 13 * (1 - 1 / 40) for step in range(1, 13)]
    assert ratio[11:23].tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    "yarn",
    [
        None,
        V3_YARN,
        YarnConfig(factor=4.0, original_max_positions=64, beta_fast=4.0, beta_slow=0.5, mscale=1.0, mscale_all_dim=0.7),
        YarnConfig(factor=8.0, original_max_positions=16, beta_fast=1.0, beta_slow=1.0),  # a ramp of one pair
        YarnConfig(factor=8.0, original_max_positions=4096, mscale=0.0, mscale_all_dim=0.0),
    ],
)
@pytest.mark.parametrize("theta", [10000.0, 500.0])
def test_tables_against_huggingface(yarn, theta):
    from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3RotaryEmbedding

    width, positions = 16, 50
    config = tiny(qk_rope_head_dim=width, rope_theta=theta, yarn=yarn)
    cos, sin = rotary_tables(positions, width, theta, yarn)
    their_cos, their_sin = DeepseekV3RotaryEmbedding(hf_config(config))(torch.zeros(1), torch.arange(positions)[None])
    torch.testing.assert_close(cos, their_cos[0, :, : width // 2], atol=1e-5, rtol=0)
    torch.testing.assert_close(sin, their_sin[0, :, : width // 2], atol=1e-5, rtol=0)


def test_a_quarter_turn():
    # The pair (3, 4) turned by 90 degrees is (-4, 3); even places come first, odd ones after them.
    x = torch.tensor([3.0, 4.0, 5.0, 6.0])
    turned = rotate(x, torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0]))
    assert turned.tolist() == [-4.0, 5.0, 3.0, 6.0]


def test_rotation_is_multiplication_by_a_complex_number():
    x = normal(7, 3, 16)
    angle = torch.outer(torch.arange(7.0), rotary_frequencies(16, 100.0, None)).unsqueeze(1)
    expected = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous()) * torch.polar(torch.ones(()), angle)
    torch.testing.assert_close(
        rotate(x, angle.cos(), angle.sin()), torch.cat([expected.real, expected.imag], -1), atol=1e-6, rtol=0
    )


def test_scores_depend_on_the_distance_only():
    cos, sin = rotary_tables(64, 8, 100.0, None)
    query, key = normal(8, seed=1), normal(8, seed=2)

    def score(m: int, n: int) -> float:
        return (rotate(query, cos[m], sin[m]) * rotate(key, cos[n], sin[n])).sum().item()

    assert score(5, 2) == pytest.approx(score(60, 57), abs=1e-5)
    assert abs(score(5, 2) - score(5, 3)) > 1e-2
    assert score(9, 9) == pytest.approx((query * key).sum().item(), abs=1e-5)


def test_rotation_keeps_lengths_unless_yarn_scales_it():
    x = normal(8)
    cos, sin = rotary_tables(10, 8, 100.0, None)
    assert rotate(x, cos[7], sin[7]).norm().item() == pytest.approx(x.norm().item(), rel=1e-6)
    # mscale 1 over mscale_all_dim 0.707: 1.3688879 / 1.2608038 = 1.0857263
    scaled = YarnConfig(factor=40.0, original_max_positions=4, mscale=1.0, mscale_all_dim=0.707)
    cos, sin = rotary_tables(10, 8, 100.0, scaled)
    assert (rotate(x, cos[7], sin[7]).norm() / x.norm()).item() == pytest.approx(1.0857263, abs=1e-6)


def test_rotation_keeps_the_type():
    cos, sin = rotary_tables(4, 8, 100.0, None)
    assert rotate(normal(8).bfloat16(), cos[3], sin[3]).dtype == torch.bfloat16


def test_position_zero_is_not_turned():
    cos, sin = rotary_tables(4, 8, math.e, None)
    assert torch.equal(rotate(torch.arange(8.0), cos[0], sin[0]), torch.tensor([0.0, 2, 4, 6, 1, 3, 5, 7]))
