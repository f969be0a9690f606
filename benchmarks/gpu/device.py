"""A device as a measurement needs it: a clock that waits for it, its memory's high-water mark, and its own limits.

A GPU runs behind the program: a call returns before its work is done. So every reading of the clock first waits for the device.
Nothing here asks for a GPU; tests run the same code on the CPU, which has no high-water mark (None).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from r1_lightning.run.cost.gpus import GPU_FLOPS

MEASURED = "measured here"
# A quarter of a gigabyte each way: far beyond any cache, small beside any GPU's memory.
COPIED_BYTES = 2**28
GEMM_SIZE = 8192
REPEATS = 10
WARM_UP = 2


@dataclass(frozen=True)
class Limits:
    """What a device can do at best: FLOP/s of dense BF16 products, bytes/s of its memory, and who says so."""

    bf16_flops_per_s: float
    bytes_per_s: float
    source: str


# Exact names, as torch prints them: a part of a GPU (MIG) or another board of the family has other limits.
DATA_SHEETS = {
    "NVIDIA H200": Limits(GPU_FLOPS["h200"], 4.8e12, "NVIDIA's H200 data sheet (SXM)"),
    "NVIDIA H100 80GB HBM3": Limits(GPU_FLOPS["h100"], 3.35e12, "NVIDIA's H100 data sheet (SXM)"),
    "NVIDIA A100-SXM4-80GB": Limits(GPU_FLOPS["a100"], 2.039e12, "NVIDIA's A100 80GB data sheet (SXM)"),
}


@dataclass(frozen=True)
class Meter:
    """Clock and memory of one device."""

    device: torch.device

    def wait(self) -> None:
        """Until everything asked of the device is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def forget_peak(self) -> None:
        """Begin a new high-water mark at what is allocated now."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def peak_bytes(self) -> int | None:
        """The most bytes that tensors took since `forget_peak`, those from before included; None on a CPU."""
        return torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else None

    def seconds_per_call(self, call: Callable[[], object], warm_up: int, repeats: int) -> float:
        """Mean seconds of a call after `warm_up` calls that do not count; the high-water mark is that of the counted ones."""
        for _ in range(warm_up):
            call()
        self.wait()
        self.forget_peak()
        start_s = time.perf_counter()
        for _ in range(repeats):
            call()
        self.wait()
        return (time.perf_counter() - start_s) / repeats


def copy_bandwidth(meter: Meter, copied_bytes: int = COPIED_BYTES, repeats: int = REPEATS) -> float:
    """Bytes per second of a copy within the device's memory; each byte is read once and written once."""
    source = torch.zeros(copied_bytes, dtype=torch.uint8, device=meter.device)
    target = torch.empty_like(source)
    return 2 * copied_bytes / meter.seconds_per_call(lambda: target.copy_(source), WARM_UP, repeats)


def gemm_rate(meter: Meter, size: int = GEMM_SIZE, repeats: int = REPEATS) -> float:
    """FLOP/s of a product of two `size` x `size` BF16 matrices: 2 size^3 operations."""
    a = torch.randn(size, size, device=meter.device).bfloat16()
    return 2 * size**3 / meter.seconds_per_call(lambda: a @ a, WARM_UP, repeats)


def limits_of(name: str, measure: Callable[[], tuple[float, float]]) -> Limits:
    """Those of the data sheet for the device of this name, else what `measure` gives: (FLOP/s, bytes/s)."""
    if name in DATA_SHEETS:
        return DATA_SHEETS[name]
    flops_per_s, bytes_per_s = measure()
    return Limits(flops_per_s, bytes_per_s, MEASURED)


def name_of(device: torch.device) -> str:
    """The GPU's name as torch prints it, or "cpu"."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
