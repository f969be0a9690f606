"""Bytes kept in FP8 against those that a real step saves, and by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from r1_lightning.functional.fp8_tiles import Reused
from r1_lightning.model.backbone import DeepSeekBackbone
from r1_lightning.model.cost import activation_bytes, converted_weight_bytes, is_attention_fused
from r1_lightning.model.fp8_cost import BYTES, held_weight_bytes, in_fp8, kept_difference, kept_differences
from r1_lightning.model.fp8_precision import FP8Precision
from r1_lightning.model.precision import PlainPrecision
from r1_lightning.model.whole_copy import whole_model
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


@pytest.mark.parametrize("settings", [{}, {"rollouts_only": True}])
def test_a_rollout_holds_what_is_counted(settings: Any) -> None:
    """What lies in `kept` after steps with a cache, to the byte; bytes that a step makes again are not among it."""
    model = DeepSeekBackbone(tiny(), FP8Precision("emulate", **settings))
    tokens = torch.ones(2, 1, dtype=torch.long)
    with torch.no_grad(), whole_model(model):
        cache = model.new_cache(2, 3)
        for _ in range(3):
            model.step(tokens, tokens.bool(), cache)
        layers = [layer for _, layer in in_fp8(model.blocks, is_decoding=True)]
        held = [thing for layer in layers for thing in (layer.kept or {}).values()]
        tensors = [x for thing in held for x in (vars(thing).values() if isinstance(thing, Reused) else [thing])]
        found = sum(x.nbytes for x in tensors if isinstance(x, torch.Tensor))
    assert found == held_weight_bytes(model) > 10_000
    assert converted_weight_bytes(model, 2, False, is_decoding=True) == 2 * 61 * 32


def test_held_bytes_of_one_block_by_hand() -> None:
    """2 experts of 130 x 20 have 2 blocks each. Emulated: 5,200 FP32 numbers; for a kernel: 5,200 bytes and 4 scales."""
    layer = FP8Precision("emulate").grouped_linear(2, 130, 20, fp8_eligible=True)
    part = SimpleNamespace(blocks=nn.ModuleList([layer]))
    assert held_weight_bytes(part) == 20_800
    layer.precision.backend = "scaled_mm"
    assert held_weight_bytes(part) == 5_200 + 16
    layer.precision.backend = "te"
    assert held_weight_bytes(part) == 0
