"""The order and the sizes of the parts."""

from __future__ import annotations

import torch

from benchmarks.gpu import command
from benchmarks.gpu.device import Meter
from benchmarks.gpu.parts import full_plan, parts_of, tiny_plan
from benchmarks.gpu.shapes import kind_of
from r1_lightning.model.cost import BF16, MicroBatch, activation_bytes, logit_bytes, meta_backbone, parameter_bytes

CPU = Meter(torch.device("cpu"))


def parts(plan):
    return parts_of(plan, CPU, lambda: None, lambda line: None)


def test_what_tells_most_comes_first_and_every_name_has_a_part():
    listed = parts(full_plan())
    assert [part.name for part in listed[:4]] == ["pretraining", "pretraining", "sampling", "same_bits"]
    assert {part.name for part in listed} == set(command.PARTS)
    assert len({part.work for part in listed}) == len(listed)


def test_all_estimates_and_a_start_fit_into_the_time_of_a_run():
    assert sum(part.estimate_s for part in parts(full_plan())) <= command.SECONDS - 60 <= 8 * 60 - 60


def test_fp8_has_three_parts_for_each_backend_before_longer_works():
    names = [part.name for part in parts(full_plan())]
    assert names[5:11] == ["fp8_bits"] * 2 + ["fp8_products"] * 2 + ["fp8_speed"] * 2


def test_sizes_are_those_of_the_documentation():
    plan = full_plan()
    assert [kind_of(config) for config in plan.trained[:2]] == ["dense", "mixture"]
    assert {config.d_model for config in plan.trained} == {1024, 2048, 4096}
    assert [size.rows for size in plan.sample_sizes] == [512, 64, 1]
    assert [size.row_tokens for size in plan.attention_sizes] == [4096, 32_768]
    assert len({size.tokens for size in plan.attention_sizes}) == 1
    size = plan.grpo_size
    assert (size.prompts, size.group_size, size.new_tokens, size.vocab_size) == (32, 16, 64, 32_768)
    assert [part.name for part in parts(tiny_plan())][-1] == "grpo"
    assert [config.d_model for config in plan.fp8_widths] == [1024, 2048, 4096, 8192]
    assert {kind_of(config) for config in plan.fp8_widths} == {"dense"} and plan.fp8_backends == ("te", "scaled_mm")


def test_what_is_trained_fits_into_a_gpu_of_80_gb_with_room():
    """Weights, gradients and two moments in FP32, weights again in BF16, activations and logits: below 60 GiB."""
    plan = full_plan()
    size = MicroBatch(plan.train_size.rows, plan.train_size.row_tokens, plan.train_size.tokens, mtp_depth=0)
    for config in (*plan.trained, *plan.fp8_widths):
        needed = parameter_bytes(meta_backbone(config)) * 4.5 + activation_bytes(config, size, BF16)
        assert needed + logit_bytes(config.vocab_size, size, "cuda") < 60 * 2**30, config.d_model
