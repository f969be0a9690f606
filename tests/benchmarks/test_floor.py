"""The floor of a step: the longer of computing and reading, part by part, from the shape alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.floor import Part, Peaks, floor_s, grpo_parts, measured_peaks, sampling_part, training_parts
from benchmarks.setting import QUICK, World
from r1_lightning.model.cost import count_parameters, parameter_bytes

PEAKS = Peaks({"fp32": 100e9, "bf16": 400e9}, 10e9)


def test_a_part_takes_the_longer_of_computing_and_reading() -> None:
    # 2e9 FLOPs at 100e9/s are 0.02 s, 1e9 bytes at 10e9/s 0.1 s; in BF16 8e9 FLOPs at 400e9/s are 0.02 s, 1e8 bytes 0.01 s
    reading, computing = Part("a", "fp32", 2e9, 1e9), Part("b", "bf16", 8e9, 1e8)
    assert reading.seconds(PEAKS) == pytest.approx(0.1) and computing.seconds(PEAKS) == pytest.approx(0.02)
    assert floor_s([reading, computing], PEAKS) == pytest.approx(0.12)
    assert PEAKS.describe() == "100 GFLOP/s in FP32, 400 GFLOP/s in BF16; 10.0 GB/s read"


@pytest.fixture(scope="module")
def world() -> World:
    return World(QUICK)


def test_training_computes_three_forwards_and_reads_weights_for_both_ways_and_the_optimizer(world: World) -> None:
    backbone = world.parts["backbone"]
    both, optimizer = training_parts(world, tokens=128, row_tokens=32)
    weights = count_parameters(backbone).activated
    # 6 FLOPs per activated weight and token (Kaplan et al. 2020, section 2.1); attention over 16 tokens adds less than a tenth
    assert 1.0 < both.flops / (6 * 128 * weights) < 1.1 and both.kind == "fp32"
    assert both.read_bytes == 2 * parameter_bytes(backbone)
    assert optimizer.flops == 0 and optimizer.read_bytes == 4 * parameter_bytes(backbone)


def test_a_token_drawn_costs_a_forward_and_reads_half_as_much_in_bf16(world: World) -> None:
    counts, size = count_parameters(world.parts["backbone"]), world.size
    in_fp32, in_bf16 = (sampling_part(world, kind, 8.0) for kind in ("fp32", "bf16"))
    drawn = size.completions * 8
    assert in_fp32.flops == in_bf16.flops > 2 * drawn * counts.activated
    assert in_fp32.read_bytes == pytest.approx(2 * in_bf16.read_bytes)


def test_a_grpo_step_is_a_rollout_a_reference_an_update_and_an_optimizer(world: World) -> None:
    rollout, reference, update, optimizer = grpo_parts(replace(world, precision="bf16", decode="fp32"), 8.0)
    assert (rollout.kind, reference.kind, update.kind, optimizer.kind) == ("fp32", "bf16", "bf16", "fp32")
    assert update.flops == 3 * reference.flops and update.read_bytes == 2 * reference.read_bytes
    assert rollout == sampling_part(world, "fp32", 8.0)


@pytest.mark.slow
def test_peaks_are_those_of_a_machine() -> None:
    peaks = measured_peaks()
    assert 1e9 < peaks.flops_per_s["fp32"] < 1e14 and 1e9 < peaks.bytes_per_s < 1e13
