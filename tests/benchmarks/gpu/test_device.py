"""The clock counts what it should, and limits are the data sheet's for exactly that device."""

from __future__ import annotations

import pytest
import torch

from benchmarks.gpu.device import DATA_SHEETS, Limits, Meter, copy_bandwidth, gemm_rate, limits_of, name_of

CPU = Meter(torch.device("cpu"))


def refuse():
    raise AssertionError("nothing is to be measured")


def test_a_known_device_has_its_data_sheets_limits():
    # H200: 4.8 TB/s; 1,979 TFLOP/s with sparsity, half of that dense
    limits = limits_of("NVIDIA H200", refuse)
    assert (limits.bf16_flops_per_s, limits.bytes_per_s) == (989.5e12, 4.8e12)
    assert "data sheet" in limits.source


@pytest.mark.parametrize("name", ["NVIDIA H200 NVL", "NVIDIA H200 MIG 1g.18gb", "cpu"])
def test_any_other_device_is_measured(name):
    assert name not in DATA_SHEETS
    assert limits_of(name, lambda: (3.0, 2.0)) == Limits(3.0, 2.0, "measured here")


def test_warm_up_calls_are_made_and_do_not_count(monkeypatch):
    clock = iter([10.0, 16.0])
    monkeypatch.setattr("benchmarks.gpu.device.time.perf_counter", lambda: next(clock))
    calls = []
    assert CPU.seconds_per_call(lambda: calls.append(1), warm_up=2, repeats=3) == 2.0  # 6 s / 3
    assert len(calls) == 5


def test_the_own_measurements_count_bytes_and_operations(monkeypatch):
    monkeypatch.setattr(Meter, "seconds_per_call", lambda self, call, warm_up, repeats: (call(), 0.5)[1])
    assert copy_bandwidth(CPU, copied_bytes=1000) == 4000.0  # 1000 read + 1000 written in half a second
    assert gemm_rate(CPU, size=4) == 256.0  # 2 x 4^3 in half a second


def test_the_own_measurements_run_for_real():
    assert copy_bandwidth(CPU, copied_bytes=2**12, repeats=1) > 0
    assert gemm_rate(CPU, size=8, repeats=1) > 0


def test_a_cpu_has_no_high_water_mark():
    CPU.forget_peak()
    CPU.wait()
    assert CPU.peak_bytes() is None
    assert name_of(CPU.device) == "cpu"


@pytest.mark.requires_gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpus_high_water_mark_is_that_of_its_tensors():
    meter = Meter(torch.device("cuda"))
    kept = torch.zeros(2**20, device="cuda")
    meter.forget_peak()
    before = meter.peak_bytes()
    torch.zeros(2**22, device="cuda")
    meter.wait()
    assert kept.numel() and meter.peak_bytes() - before == 2**24  # FP32
