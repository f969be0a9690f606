"""Shapes have V3's proportions."""

from __future__ import annotations

from benchmarks.gpu.shapes import shape_of


def test_v3s_own_width_has_v3s_own_numbers():
    shape = shape_of(7168)
    assert (shape.d_ff_dense, shape.d_ff_expert, shape.q_lora_rank) == (18432, 2048, 1536)
    assert (shape.qk_nope_head_dim, shape.qk_rope_head_dim, shape.v_head_dim, shape.kv_lora_rank) == (128, 64, 128, 512)


def test_other_widths_are_rounded_to_multiples_of_64():
    # 4096 x 18432 / 7168 = 10532.6 -> 165 x 64; x 2048 / 7168 = 1170.3 -> 18 x 64; x 1536 / 7168 = 877.7 -> 14 x 64
    shape = shape_of(4096)
    assert (shape.d_ff_dense, shape.d_ff_expert, shape.q_lora_rank, shape.n_heads) == (10560, 1152, 896, 32)


def test_a_quarter_of_the_experts_serves_each_token():
    assert shape_of(1024, n_routed_experts=32).n_activated_experts == 8
