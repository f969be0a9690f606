"""Equal bits are found equal, and one that differs is found."""

from __future__ import annotations

import pytest
import torch

from benchmarks.gpu import same_bits
from benchmarks.gpu.device import Meter
from benchmarks.gpu.parts import tiny_plan
from benchmarks.gpu.same_bits import same

SIZE = tiny_plan().bits_size
CPU = Meter(torch.device("cpu"))


def test_bits_and_not_numbers_are_compared():
    nan, zero = torch.tensor([float("nan")]), torch.zeros(2)
    assert same(nan, nan.clone()) and same(zero, torch.zeros(2)) and same(torch.tensor(1.5), torch.tensor(1.5))
    assert not same(zero, -zero)
    assert not same(zero, zero.double()) and not same(zero, torch.zeros(2, 1))
    assert not same(torch.tensor(1.0), torch.tensor(1.0 + 2**-23))  # the next number above 1


def test_a_resumed_training_and_a_second_rollout_are_the_same():
    (row,) = same_bits.measure(SIZE, CPU)
    tensors = int(row.unit.split()[1])
    # 2 of the rollouts, the losses of steps 3 and 4, and weights
    assert row.value == tensors > 20 and not row.failed
    assert row.beside == "4 steps, stopped after 2"


def test_a_rollout_that_differs_is_a_failure(monkeypatch):
    draws = []

    class Drifting(same_bits.Sampler):
        def __call__(self, prompts, copies, keys, *rest):
            draws.append(1)
            return super().__call__(prompts, copies, keys + len(draws), *rest)

    monkeypatch.setattr(same_bits, "Sampler", Drifting)
    monkeypatch.setattr(same_bits, "_trainings", lambda parts, device_type: {})
    (row,) = same_bits.measure(SIZE, CPU)
    assert row.failed and row.value == 0.0
    assert row.beside == "different: token ids of the rollouts, log-probs of the rollouts"


@pytest.mark.slow
def test_a_training_that_does_not_go_on_from_the_checkpoint_is_a_failure(monkeypatch):
    monkeypatch.setattr(same_bits, "checkpoint_to_resume", lambda folder: None)
    with pytest.raises(RuntimeError, match=r"took steps \[1, 2, 3, 4\], not \[3, 4\]"):
        list(same_bits.measure(SIZE, CPU))
