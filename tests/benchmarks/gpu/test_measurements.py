"""The very code that a GPU would run, at tiny sizes on the CPU: what was done is what the rows say."""

from __future__ import annotations

import json
import math

import pytest
import torch

from benchmarks.gpu import grpo, pretraining, sampling
from benchmarks.gpu.check import tiny_plan
from benchmarks.gpu.device import Limits, Meter
from benchmarks.gpu.formulas import decoding_bytes, training_flops_per_token
from benchmarks.grpo_work import STEPS, Witness

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


def test_pretraining_row_by_hand(half_a_second):
    row = pretraining.measure(PLAN.trained[0], PLAN.train_size, CPU, LIMITS)
    flops = training_flops_per_token(PLAN.trained[0], 16)
    assert row.value == 64.0  # 2 rows x 16 tokens in 0.5 s
    assert row.details["mfu"] == pytest.approx(64 * flops / 1e9)
    assert f"MFU {64 * flops / 1e9:.1%}" in row.beside and "a test" in row.beside
    assert row.peak_bytes is None


def test_a_training_step_moves_every_matrix():
    size, made = PLAN.train_size, []
    original = pretraining.DeepSeekBackbone

    def remembered(*arguments):
        made.append(original(*arguments))
        return made[-1]

    pretraining.DeepSeekBackbone = remembered
    try:
        step = pretraining._optimizer_step(PLAN.trained[0], size, CPU.device)
    finally:
        pretraining.DeepSeekBackbone = original
    before = [p.detach().clone() for p in made[0].parameters()]
    step()
    still = [name for (name, p), then in zip(made[0].named_parameters(), before, strict=True) if p.equal(then)]
    assert still == []


def test_sampling_row_by_hand(half_a_second):
    row = sampling.measure(PLAN.sampled, PLAN.sample_size, CPU, LIMITS)
    step_bytes = decoding_bytes(PLAN.sampled, rows=4, context=4 + 4 / 2, number=2)
    assert row.value == 32.0  # 4 rows x 4 tokens in 0.5 s
    assert row.details["bytes_per_step"] == step_bytes
    assert row.details["floor_tokens_per_s"] == pytest.approx(4 * 1e6 / step_bytes)
    assert f"{32 / (4 * 1e6 / step_bytes):.1%} of" in row.beside


def test_sampling_is_not_below_its_floor_for_real():
    # 1e12 bytes/s is beyond this machine: a rate above that floor would mean that work was left out
    row = sampling.measure(PLAN.sampled, PLAN.sample_size, CPU, Limits(1e9, 1e12, "a test"))
    assert 0 < row.value < row.details["floor_tokens_per_s"]


def test_the_grpo_step_of_ours_runs_and_says_why_trl_does_not():
    row = grpo.measure(PLAN.grpo_size, CPU, no_trl="trl not installed", say=lambda line: None)
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
    row = grpo.measure(PLAN.grpo_size, CPU, no_trl="", say=said.append)
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
