"""The very code that a GPU would run, at tiny sizes on the CPU: what was done is what the rows say."""

from __future__ import annotations

import json
import math

import pytest
import torch

from benchmarks.gpu import attention, grpo, pretraining, recipe, sampling
from benchmarks.gpu.device import Limits, Meter
from benchmarks.gpu.formulas import decoding_bytes, training_flops_per_token
from benchmarks.gpu.parts import tiny_plan
from benchmarks.grpo_work import STEPS, Witness
from r1_lightning.model.hf_model import HFBackbone, HFModelConfig

PLAN = tiny_plan()
CPU = Meter(torch.device("cpu"))
LIMITS = Limits(bf16_flops_per_s=1e9, bytes_per_s=1e6, source="a test")


@pytest.fixture
def half_a_second(monkeypatch):
    """Calls are made (one of each) and are said to take half a second."""

    def seconds(self, call, warm_up, repeats):
        call()
        return 0.5

    monkeypatch.setattr(Meter, "seconds_per_call", seconds)


@pytest.mark.parametrize("config", PLAN.trained)
def test_pretraining_row_by_hand(config, half_a_second):
    (row,) = pretraining.measure(config, PLAN.train_size, CPU, LIMITS)
    flops = training_flops_per_token(config, 16)
    assert row.value == 64.0  # 2 rows x 16 tokens in 0.5 s
    assert row.details["mfu"] == pytest.approx(64 * flops / 1e9)
    assert f"MFU {64 * flops / 1e9:.1%}" in row.beside and "a test" in row.beside
    assert row.peak_bytes is None


@pytest.mark.parametrize("config", PLAN.trained)
def test_a_training_step_moves_every_matrix(config, monkeypatch):
    made, original = [], pretraining.fresh_backbone

    def remembered(*arguments):
        made.append(original(*arguments))
        return made[-1]

    monkeypatch.setattr(pretraining, "fresh_backbone", remembered)
    step = pretraining.optimizer_step(config, PLAN.train_size, CPU.device)
    before = [p.detach().clone() for p in made[0].parameters()]
    step()
    still = [name for (name, p), then in zip(made[0].named_parameters(), before, strict=True) if p.equal(then)]
    assert still == []


def test_sampling_rows_by_hand_with_generate_beside_them_last(half_a_second):
    alone, beside = sampling.measure(PLAN.sampled, PLAN.sample_sizes, CPU, LIMITS, no_hf="")
    step_bytes = decoding_bytes(PLAN.sampled, rows=4, context=4 + 4 / 2, number=2)
    assert alone.value == beside.value == 32.0  # 4 rows x 4 tokens in 0.5 s
    assert alone.details["bytes_per_step"] == step_bytes
    assert alone.details["floor_tokens_per_s"] == pytest.approx(4 * 1e6 / step_bytes)
    assert f"{32 / (4 * 1e6 / step_bytes):.1%} of" in alone.beside
    assert beside.beside == f"{alone.beside}; generate 32 tokens/s: 1.00x"
    assert beside.details["generate_tokens_per_s"] == 32.0


def test_without_transformers_our_rows_say_so(half_a_second):
    alone, said = sampling.measure(PLAN.sampled, PLAN.sample_sizes, CPU, LIMITS, no_hf="transformers not installed")
    assert said.beside == f"{alone.beside}; generate not run: transformers not installed"


def test_sampling_is_not_below_its_floor_for_real():
    # 1e12 bytes/s is beyond this machine: a rate above that floor would mean that work was left out
    limits = Limits(1e9, 1e12, "a test")
    row = next(sampling.measure(PLAN.sampled, PLAN.sample_sizes, CPU, limits, no_hf="not now"))
    assert 0 < row.value < row.details["floor_tokens_per_s"]


def test_attention_row_by_hand(half_a_second):
    row, beside = attention.measure(PLAN.attended, PLAN.attention_sizes[0], CPU, LIMITS)
    # Width 64, one head: W^DQ 64 x 64, W^UQ 64 x (128 + 64), W^DKV 64 x (16 + 64), W^UKV 16 x (128 + 128), W^O 128 x 64.
    weights = 64 * 64 + 64 * 192 + 64 * 80 + 16 * 256 + 128 * 64
    flops = 6 * (weights + (64 + 1) / 2 * (192 + 128))  # scores and weighted sum over 32.5 tokens in the mean
    assert row.value == 256.0  # 2 rows x 64 tokens in 0.5 s
    assert row.details["flops_per_token"] == flops
    assert row.beside.startswith(f"{256 * flops / 1e9:.1%} of 0.001 TFLOP/s (a test)")
    assert beside.beside == f"{row.beside}; with a dense mask 256 tokens/s: 1.00x"
    assert beside.details["dense_tokens_per_s"] == 256.0


def test_where_a_dense_mask_does_not_fit_our_row_stays(monkeypatch):
    seen = []

    def full(self, call, warm_up, repeats):
        seen.append(1)
        if len(seen) == 2:
            raise torch.OutOfMemoryError("19 GiB")
        return 0.5

    monkeypatch.setattr(Meter, "seconds_per_call", full)
    _, beside = attention.measure(PLAN.attended, PLAN.attention_sizes[0], CPU, LIMITS)
    assert beside.value == 256.0 and beside.beside.endswith("; with a dense mask: out of memory")


def test_a_pass_through_attention_reaches_every_matrix():
    config, size = PLAN.attended, PLAN.attention_sizes[0]
    kind = attention.layer_kinds(config)[0]
    layer = kind.build(config, attention.PlainPrecision("bf16"), 0)
    attention.draw_weights(layer, config.init_std)
    attention._pass(config, kind, layer, size, CPU, kind.row_mask)()
    assert all(p.grad is not None and bool(p.grad.any()) for p in layer.parameters())


def test_the_recipes_step_runs_with_a_larger_vocabulary_than_the_tokenizers():
    (row,) = recipe.measure(PLAN.recipe_size, CPU, "")
    assert row.unit == "s/step" and row.value > 0
    # 2 prompts x 2 completions x 4 tokens; the rollout is a part of the step
    assert row.details["sampled_tokens_per_s"] == pytest.approx(16 / row.details["rollout_s"])
    assert 0 < row.details["rollout_s"] < row.value
    (said,) = recipe.measure(PLAN.recipe_size, CPU, "transformers not installed")
    assert (said.value, said.not_run) == (None, "transformers not installed")


def test_the_recipes_model_is_qwen2_5_of_half_a_billion_weights():
    # Qwen2.5's report: 0.49 B weights, 0.36 B without the embedding
    with torch.device("meta"):
        model = HFBackbone(HFModelConfig(hf_config=recipe.QWEN_0_5B), is_drawn=False)
    total = sum(parameter.numel() for parameter in model.parameters())
    assert total == 494_032_768 and total - 151_936 * 896 == 357_898_112


def test_the_grpo_step_of_ours_runs_and_says_why_trl_does_not():
    (row,) = grpo.measure(PLAN.grpo_size, CPU, no_trl="trl not installed", say=lambda line: None)
    assert row.unit == "s/step" and math.isfinite(row.value) and row.value > 0
    assert row.beside == "TRL not run: trl not installed"


def test_the_grpo_setting_is_that_of_the_configuration():
    parts = grpo.build_parts(PLAN.grpo_size)
    assert parts["tokenizer"].vocab_size <= 512
    assert (parts["optim"].lr, parts["optim"].weight_decay) == (1e-4, 0.0)
    assert (parts["source"].min_operations, parts["source"].max_operations) == (2, 3)
    assert parts["rollout"].minibatches_per_rollout == 1


@pytest.mark.slow
def test_trl_does_the_same_work_beside_us():
    pytest.importorskip("trl")
    said = []
    alone, row = grpo.measure(PLAN.grpo_size, CPU, no_trl="", say=said.append)
    assert alone.work == row.work and alone.value > 0
    assert row.details["trl_s_per_step"] > 0 and row.details["speed_up"] > 0
    assert row.beside.startswith(f"TRL {row.details['trl_s_per_step']:.3f} s/step (batch 8, experts=")
    assert any(line.startswith("  pair 1") for line in said)
    json.dumps(dict(row.details))


def test_a_witness_notes_when_steps_end():
    witness, work = Witness(), PLAN.grpo_size.work
    for _ in range(STEPS):
        witness.step_ended()
    for _ in range(STEPS * 16):
        witness.reward("ab", 8)
    assert witness.seconds_per_step(work) >= 0
    assert witness.step_ends_s == sorted(witness.step_ends_s)
