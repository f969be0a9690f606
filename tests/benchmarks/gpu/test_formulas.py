"""MFU and the bandwidth's floor, with every weight counted by hand."""

from __future__ import annotations

import dataclasses

import pytest

from benchmarks.gpu.formulas import decoding_bytes, floor_tokens_per_s, mfu, training_flops_per_token
from r1_lightning.model.config import ModelConfig

# One dense block and one mixture. Attention, each: W^DQ 16 x 8 = 128, W^UQ 8 x 2(4 + 2) = 96, W^DKV 16 (6 + 2) = 128,
# W^UKV 6 x 2 (4 + 4) = 96, W^O 8 x 16 = 128: 576. Dense feed-forward 3 x 16 x 32 = 1536. An expert 3 x 16 x 8 = 384; the
# shared one the same; router 16 x 4 = 64. Head 16 x 50 = 800.
SHAPE = ModelConfig(
    vocab_size=50,
    d_model=16,
    n_layers=2,
    n_dense_layers=1,
    n_heads=2,
    q_lora_rank=8,
    kv_lora_rank=6,
    qk_nope_head_dim=4,
    qk_rope_head_dim=2,
    v_head_dim=4,
    d_ff_dense=32,
    d_ff_expert=8,
    n_routed_experts=4,
    n_shared_experts=1,
    n_activated_experts=2,
    mtp_depth=0,
)


def test_training_flops_by_hand():
    # activated: 2 x 576 + 1536 + (2 chosen + 1 shared) x 384 + 64 + 800 = 4704
    # attention: 2 layers x mean context (7 + 1) / 2 = 4 x 2 heads x (6 + 4) = 160
    assert training_flops_per_token(SHAPE, row_tokens=7) == 6 * (4704 + 160)


def test_longer_rows_cost_attention_only():
    # 8 tokens longer: 4 more in the mean, x 2 layers x 2 heads x 10 x 6
    assert training_flops_per_token(SHAPE, 15) - training_flops_per_token(SHAPE, 7) == 4 * 2 * 2 * 10 * 6


def test_mfu_by_hand():
    # 1000 tokens/s x 2e6 FLOPs = 2e9 of 8e9 FLOP/s
    assert mfu(1000.0, 2e6, 8e9) == 0.25


def test_decoding_bytes_by_hand():
    # BF16 (2 bytes): 2 x 576 + 1536 + shared 384 + head 800 = 3872, and all 4 experts x 384 = 1536 with very many rows.
    # FP32 (4 bytes): router 64; norms: 2 per block x 2 x 16 + final 16 + per attention q 8 and kv 6 = 64 + 16 + 28 = 108.
    # Cache: 1000 rows x 5 tokens x 2 layers x (6 + 2) x 2 bytes = 160,000.
    expected = 2 * (3872 + 1536) + 4 * (64 + 108) + 160_000
    assert decoding_bytes(SHAPE, rows=1000, context=5, number=2) == pytest.approx(expected)


def test_decoding_bytes_of_a_hybrid_by_hand():
    # One of two layers lightning: twice the context adds 10 rows x 5 tokens x 1 layer x (6 + 2) x 2 bytes only, and without one
    # a state of 2 heads x 4 x 4 FP32 numbers per row is read still.
    hybrid = dataclasses.replace(SHAPE, attention_kind="lightning", softmax_attention_every=2)
    at_0, at_5, at_10 = (decoding_bytes(hybrid, rows=10, context=context, number=2) for context in (0, 5, 10))
    assert at_10 - at_5 == pytest.approx(10 * 5 * 8 * 2)
    # Lightning: 16 x 24 + 16 x 8 + 8 x 16 = 640 instead of 576, a norm of 8 instead of 8 + 6
    fewer = decoding_bytes(SHAPE, rows=10, context=0, number=2)
    assert at_0 - fewer == pytest.approx(2 * (640 - 576) + 4 * (8 - 14) + 10 * 2 * 4 * 4 * 4)


def test_a_single_row_reads_its_chosen_experts_only():
    # 1 - (1 - 2/4)^1 = 1/2 of 1536, instead of all; and no cache
    expected = 2 * (3872 + 768) + 4 * (64 + 108)
    assert decoding_bytes(SHAPE, rows=1, context=0, number=2) == pytest.approx(expected)


def test_the_floor_by_hand():
    # 512 rows, 3 GB per step at 4.8 TB/s: 1600 steps/s
    assert floor_tokens_per_s(512, 3e9, 4.8e12) == pytest.approx(512 * 1600)
