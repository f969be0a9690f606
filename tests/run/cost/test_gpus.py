"""Rates of GPUs: those of the data sheets, without sparsity."""

from __future__ import annotations

from r1_lightning.run.cost.gpus import GPU_FLOPS


def test_rates_are_dense():
    assert GPU_FLOPS == {"a100": 312e12, "h100": 989.5e12, "h200": 989.5e12, "h800": 989.5e12}
