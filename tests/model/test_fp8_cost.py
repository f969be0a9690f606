"""Bytes kept in FP8 against those that a real step saves, and by hand."""

from __future__ import annotations

from typing import Any

import pytest

from r1_lightning.model.backbone import DeepSeekBackbone
from r1_lightning.model.cost import activation_bytes, converted_weight_bytes, is_attention_fused
from r1_lightning.model.fp8_cost import BYTES, in_fp8, kept_difference, kept_differences
from r1_lightning.model.fp8_precision import FP8Precision
from r1_lightning.model.precision import PlainPrecision
from tests.model.test_cost import MicroBatch, small, stage, tensors_of, token_rows
from tests.model.tiny import tiny
from tests.support.memory import saved_bytes


@pytest.mark.parametrize(
    ("changes", "rows", "length", "weight"),
    [
        ({}, 8, 128, 0.0),
        ({"mtp_depth": 2}, 8, 128, 0.1),
        ({"v_head_dim": 8}, 4, 256, 0.0),
        ({"n_dense_layers": 3, "q_lora_rank": None}, 8, 128, 0.0),
    ],
)
def test_activations_are_those_that_a_real_step_saves(changes: Any, rows: int, length: int, weight: float) -> None:
    model = DeepSeekBackbone(small(**changes), FP8Precision("emulate"))
    config, depth = model.config, model.config.mtp_depth if weight else 0
    described, is_fused = MicroBatch(rows, length, rows * length, depth), is_attention_fused(config, "cpu")
    expected = activation_bytes(config, described, 2, is_fused) + sum(kept_differences(model, described, is_fused))
    expected += converted_weight_bytes(model, 2, depth > 0)
    module = stage("pretrain", model, weight)
    batch = token_rows(config, rows, length)
    measured = saved_bytes(lambda: module.training_step(batch, 0), tensors_of(module))
    assert expected == pytest.approx(measured, rel=0.03)


def test_a_dense_block_by_hand() -> None:
    """Inputs of q_down and kv_down 32 each, q_up 12, kv_up 16, gate_up 32, down 40: 164 numbers of 2 bytes become 1.03125; the 24
    of attention's output, which stays, are kept beside it."""
    block = DeepSeekBackbone(tiny(), FP8Precision("emulate")).blocks[0]
    assert BYTES == 1.03125
    assert kept_difference(block, True, 2) == pytest.approx(164 * (1.03125 - 2) + 24 * 1.03125)
    assert kept_difference(block, False, 2) == pytest.approx(188 * (1.03125 - 2))


def test_nothing_changes_without_fp8_in_training() -> None:
    for precision in (PlainPrecision("bf16"), FP8Precision("emulate", rollouts_only=True)):
        model = DeepSeekBackbone(tiny(), precision)
        assert in_fp8(model) == [] and set(kept_differences(model, MicroBatch(2, 8, 16, 0), True)) == {0}
        assert converted_weight_bytes(model, 2, True) > 10_000


def test_only_the_head_has_a_copy_in_bf16() -> None:
    assert converted_weight_bytes(DeepSeekBackbone(tiny(), FP8Precision("emulate")), 2, True) == 2 * 61 * 32
