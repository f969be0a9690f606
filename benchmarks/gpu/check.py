"""The parts of the check, one after the other: each is measured, or has its reason for not being.

A part that fails does not take the others with it: its error is printed whole, and its row says so. What a part
left in memory is given back before the next begins.
"""

from __future__ import annotations

import gc
import logging
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu import grpo, pretraining, sampling
from benchmarks.gpu.device import COPIED_BYTES, GEMM_SIZE, Limits, Meter, copy_bandwidth, gemm_rate, limits_of, name_of
from benchmarks.gpu.grpo_size import GrpoSize, title
from benchmarks.gpu.needs import missing
from benchmarks.gpu.report import GIB, Row, render, write
from benchmarks.gpu.shapes import shape_of
from r1_lightning.artefacts.lineage import commit as commit_here
from r1_lightning.model.config import ModelConfig

NO_GPU = "no CUDA device"
# TRL's side imports the benchmark's setting, and that Hydra.
TRL_NEEDS = ("trl", "datasets", "transformers", "hydra", "omegaconf")


@dataclass(frozen=True)
class Plan:
    """How much work: shapes to train, the shape to sample from, sizes; bytes and width of the device's own measurements."""

    trained: tuple[ModelConfig, ...]
    train_size: pretraining.TrainSize
    sampled: ModelConfig
    sample_size: sampling.SampleSize
    grpo_size: GrpoSize
    copied_bytes: int
    gemm_size: int


def full_plan() -> Plan:
    """Widths 1,024, 2,048 and 4,096; 16,384 tokens per training step; the rollout of the benchmark on the CPU."""
    return Plan(
        trained=tuple(shape_of(width) for width in (1024, 2048, 4096)),
        train_size=pretraining.TrainSize(rows=8, row_tokens=2048, warm_up=3, steps=10),
        sampled=shape_of(4096),
        sample_size=sampling.SampleSize(32, 16, prompt_tokens=128, new_tokens=128, warm_up=1, rollouts=2),
        grpo_size=GrpoSize(32, 16, 64, 128, (64, 512), 4000, width=1024, n_layers=4, n_routed_experts=32, repeats=3),
        copied_bytes=COPIED_BYTES,
        gemm_size=GEMM_SIZE,
    )


def tiny_plan() -> Plan:
    """Seconds on two cores."""
    shape = shape_of(64, vocab_size=64, n_layers=2, n_routed_experts=4, kv_lora_rank=16, max_positions=64)
    return Plan(
        trained=(shape,),
        train_size=pretraining.TrainSize(rows=2, row_tokens=16, warm_up=1, steps=2),
        sampled=shape,
        sample_size=sampling.SampleSize(2, 2, prompt_tokens=4, new_tokens=4, warm_up=1, rollouts=1),
        grpo_size=GrpoSize(4, 4, 8, 96, (8,), 200, width=64, n_layers=2, n_routed_experts=4, repeats=1),
        copied_bytes=2**16,
        gemm_size=64,
    )


@dataclass(frozen=True)
class Part:
    """A row to be: the part's name, the work in words, and its measurement."""

    name: str
    work: str
    measure: Callable[[], Row]


def parts_of(plan: Plan, meter: Meter, limits: Callable[[], Limits]) -> list[Part]:
    """The rows of the table in their order. Nothing is measured yet, not even `limits`."""

    def train(config: ModelConfig) -> Callable[[], Row]:
        return lambda: pretraining.measure(config, plan.train_size, meter, limits())

    trained = [Part("pretraining", pretraining.title(c, plan.train_size), train(c)) for c in plan.trained]
    return [
        *trained,
        Part(
            "sampling",
            sampling.title(plan.sampled, plan.sample_size),
            lambda: sampling.measure(plan.sampled, plan.sample_size, meter, limits()),
        ),
        Part(
            "grpo",
            title(plan.grpo_size),
            lambda: grpo.measure(plan.grpo_size, meter, no_trl=missing(TRL_NEEDS), say=_say),
        ),
    ]


def run(part: Part, cannot: str, meter: Meter) -> Row:
    """The part's row; `cannot` is a reason not to try."""
    if cannot:
        return Row(part.name, part.work, not_run=cannot)
    _say(part.work)
    gc.collect()
    if meter.device.type == "cuda":
        torch.cuda.empty_cache()
    try:
        return part.measure()
    except torch.OutOfMemoryError:
        return Row(part.name, part.work, not_run="out of memory")
    except Exception as error:  # whatever it is, the other parts still have something to say
        traceback.print_exc(file=sys.stderr)
        first = (str(error).splitlines() or [""])[0]
        return Row(part.name, part.work, not_run=f"failed: {type(error).__name__}: {first}", failed=True)


def check(only: Sequence[str], is_rehearsal: bool, out: Path | None, commit: str | None) -> int:
    """Run the parts named in `only`, print the table, keep what ran on a GPU below `out`; returns the exit code."""
    # Our runs leave fresh memory as it is (`set_up_torch`); deterministic algorithms alone would fill it with NaN.
    setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)  # noqa: B010 - unknown to mypy
    has_gpu = torch.cuda.is_available() and not is_rehearsal
    meter = Meter(torch.device("cuda" if has_gpu else "cpu"))
    plan = tiny_plan() if is_rehearsal else full_plan()
    _silence_warnings()
    known: list[Limits] = []

    def limits() -> Limits:
        if not known:
            known.append(limits_of(name_of(meter.device), lambda: _measured(plan, meter)))
        return known[0]

    cannot = "" if has_gpu or is_rehearsal else NO_GPU
    rows = [run(part, cannot, meter) for part in parts_of(plan, meter, limits) if part.name in only]
    print(f"\n{', '.join(f'{name}: {value}' for name, value in hardware_of(meter.device).items())}\n\n{render(rows)}")
    if is_rehearsal:
        print("\nA rehearsal: these numbers mean nothing.")
    elif out is not None:
        print(f"\n{kept(rows, meter, plan, out, commit or commit_here())}")
    return int(any(row.failed for row in rows))


def kept(rows: Sequence[Row], meter: Meter, plan: Plan, out: Path, commit: str) -> str:
    """Write the rows of a GPU on which something ran, beside what its memory really copies; a line that says what was done."""
    if meter.device.type != "cuda" or all(row.value is None for row in rows):
        return "nothing ran on a GPU, so nothing is written"
    flops_per_s, bytes_per_s = _measured(plan, meter)
    hardware = {
        **hardware_of(meter.device),
        "measured_bf16_flops_per_s": flops_per_s,
        "copied_bytes_per_s": bytes_per_s,
    }
    return f"written: {write(rows, hardware, commit, out)}"


def _measured(plan: Plan, meter: Meter) -> tuple[float, float]:
    return gemm_rate(meter, plan.gemm_size), copy_bandwidth(meter, plan.copied_bytes)


def hardware_of(device: torch.device) -> dict[str, Any]:
    """The device's name, memory and driver's CUDA; a CPU is only named as one. No names of hosts."""
    if device.type != "cuda":
        return {"device": name_of(device)}
    properties = torch.cuda.get_device_properties(device)
    return {
        "device": name_of(device),
        "memory_gib": round(properties.total_memory / GIB, 1),
        "compute_capability": f"{properties.major}.{properties.minor}",
        "cuda": torch.version.cuda,
    }


def _silence_warnings() -> None:
    """Both trainers' advice out of the way; errors stay."""
    for name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for category in (UserWarning, FutureWarning, DeprecationWarning):
        warnings.filterwarnings("ignore", category=category)


def _say(line: str) -> None:
    print(line, flush=True)
