"""Whether a stage fits a machine, and what to change if it does not: the last lines of a dry run.

The estimate's peak with a reserve of a quarter must fit. If it does not, remedies are tried one after the other, those that change
no number first, until it fits; each line says what the peak is then. With several devices, weights, gradients, moments and frozen
models are taken to be shared out evenly (fully sharded data parallelism), each device gathers one block at a time, and rows are
divided among the devices. That is an assumption about a machine: this program trains on one device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from r1_lightning.model.cost import MicroBatch
from r1_lightning.model.precision import BF16, FP32, weights_cast_by_autocast
from r1_lightning.run.config.declarations import line_of
from r1_lightning.run.cost.load import Wave
from r1_lightning.run.cost.sampling_cost import sampling_bytes
from r1_lightning.run.cost.stage_cost import EmptyStage, update_bytes
from r1_lightning.stages.adamw_bf16 import BF16AdamWConfig
from r1_lightning.stages.base import AdamWConfig
from r1_lightning.stages.muon import MuonConfig

GIB = 2**30
RESERVE = 1.25  # the estimate holds to within a quarter
MOST_DEVICES = 4096
LEAST_GAIN = 0.99  # a remedy that saves less than a hundredth is none
# By the class of the optimizer's settings, whether there is the same optimizer with moments in BF16.
OFFERS_HALF_MOMENTS: dict[type, bool] = {AdamWConfig: True, BF16AdamWConfig: False, MuonConfig: False}
GATHERED = 2  # a block's weights, and its gradients before they are shared out


@dataclass(frozen=True)
class Machine:
    """`devices` of `memory` bytes each."""

    devices: int
    memory: float
    name: str


@dataclass(frozen=True)
class Change:
    """What is changed, beside the stage as it is configured; rows None: as configured."""

    recompute: bool | None = None  # None: as configured
    rows: int | None = None
    wave_rows: int | None = None
    is_reference_half: bool = False
    are_moments_half: bool = False
    devices: int = 1


def peak_bytes(stage: Any, change: Change) -> int:
    """Return the peak memory of one of `change.devices` devices, in bytes."""
    lasting = sum(line.size for line in stage.lasting_memory())
    lasting -= saved_by_half_reference(stage) if change.is_reference_half else 0
    lasting -= saved_by_half_moments(stage) if change.are_moments_half else 0
    gathered = 0
    if change.devices > 1:
        gathered = GATHERED * _largest_gathered(stage)
    sampling = sampling_bytes(stage.sampling_memory(_wave(stage, change)))
    update = 0
    if isinstance(stage, EmptyStage):
        update = update_bytes(stage.update_memory(_batch(stage, change), change.recompute))
    return math.ceil(lasting / change.devices) + gathered + max(sampling, update)


def saved_by_half_reference(stage: Any) -> int:
    """Bytes that the frozen copy takes less with its linear layers in BF16; 0 if it is no copy, not here, or computes in BF16."""
    copy = getattr(getattr(getattr(stage, "module", None), "reference", None), "backbone", None)
    is_here = any(line.name == "reference" for line in stage.lasting_memory())
    if not is_here or not isinstance(copy, nn.Module) or stage.backbone.precision.compute != "fp32":
        return 0
    return sum((FP32 - BF16) * weight.numel() for weight in weights_cast_by_autocast(copy))


def saved_by_half_moments(stage: Any) -> int:
    """Bytes that AdamW's moments take less in BF16; 0 for another optimizer, and for moments in BF16."""
    offers = isinstance(stage, EmptyStage) and line_of(OFFERS_HALF_MOMENTS, type(stage.parts.get("optim")))
    sizes = {line.name: line.size for line in stage.lasting_memory()}
    return sizes.get("optimizer state", 0) * (FP32 - BF16) // FP32 if offers else 0


def _largest_gathered(stage: Any) -> int:
    """Bytes of the larger of a block and the embedding with the head, in FP32."""
    counts, layers = stage.network.parameters(), stage.network.n_layers
    return FP32 * max((counts.total - counts.embeddings) // max(layers, 1), counts.embeddings)


def _batch(stage: EmptyStage, change: Change) -> MicroBatch:
    batch = stage.micro_batch()
    rows = math.ceil((change.rows or batch.rows) / change.devices)
    return replace(batch, rows=rows, targets=math.ceil(batch.targets * rows / batch.rows))


def _wave(stage: Any, change: Change) -> Wave | None:
    wave: Wave | None = stage.wave()
    if wave is None:
        return None
    rows = math.ceil((change.wave_rows or wave.rows) / change.devices)
    return replace(wave, rows=rows, prompts=math.ceil(wave.prompts * rows / wave.rows))


def verdict(stage: Any, machine: Machine) -> Iterator[str]:
    """Yield the lines about one machine: that the stage fits, or what to change, in this order, and by how much."""
    change = Change(devices=machine.devices)
    peak = peak_bytes(stage, change)
    shared = " each, all shared out among them (not built yet: one device trains)" if machine.devices > 1 else ""
    if peak * RESERVE <= machine.memory:
        yield f"{machine.name}: fits; {_gib(peak)}{shared} and a quarter in reserve are {_gib(peak * RESERVE)}"
        return
    yield f"{machine.name}: does not fit; {_gib(peak)}{shared} and a quarter in reserve are {_gib(peak * RESERVE)}; change"
    for make, text in REMEDIES:
        changed = make(stage, change, machine)
        after = peak_bytes(stage, changed)
        if after > LEAST_GAIN * peak:
            continue
        change, peak = changed, after
        fits = peak * RESERVE <= machine.memory
        yield f"  {text(stage, change):<72} {_gib(peak)}{', fits' if fits else ''}"
        if fits:
            return
    for devices in _powers(machine.devices):
        peak = peak_bytes(stage, replace(change, devices=devices))
        if peak * RESERVE <= machine.memory:
            what = f"and {devices:,} such devices, all shared out among them (not built yet)"
            yield f"  {what:<72} {_gib(peak)} each, fits"
            return
    yield "  and then shorter rows or a smaller model: one row, or one gathered block, is too large for such a device"


def _powers(above: int) -> Iterator[int]:
    devices = 2 * above
    while devices <= MOST_DEVICES:
        yield devices
        devices *= 2


def _gib(size: float) -> str:
    value = size / GIB
    return f"{value:,.0f} GiB" if value >= 10 else f"{value:,.2f} GiB"


def _smaller(size: int, fits: Callable[[int], bool]) -> int:
    """Return the largest of size / 2, size / 4, ... that fits, at least 1."""
    while size > 1:
        size = math.ceil(size / 2)
        if fits(size):
            break
    return size


def _with_recompute(stage: Any, change: Change, machine: Machine) -> Change:
    return replace(change, recompute=True)


def _with_fewer_rows(stage: Any, change: Change, machine: Machine) -> Change:
    if not isinstance(stage, EmptyStage):
        return change
    rows = _smaller(
        stage.micro_batch().rows,
        lambda rows: peak_bytes(stage, replace(change, rows=rows)) * RESERVE <= machine.memory,
    )
    return replace(change, rows=rows)


def _with_smaller_wave(stage: Any, change: Change, machine: Machine) -> Change:
    wave = stage.wave()
    if wave is None:
        return change
    rows = _smaller(
        wave.rows, lambda rows: peak_bytes(stage, replace(change, wave_rows=rows)) * RESERVE <= machine.memory
    )
    return replace(change, wave_rows=rows)


def _with_half_reference(stage: Any, change: Change, machine: Machine) -> Change:
    return replace(change, is_reference_half=True)


def _with_half_moments(stage: Any, change: Change, machine: Machine) -> Change:
    return replace(change, are_moments_half=True)


def _rows_text(stage: EmptyStage, change: Change) -> str:
    rows, parts = (
        stage.micro_batch().rows,
        stage.micro_batches * math.ceil(stage.micro_batch().rows / (change.rows or 1)),
    )
    group = "rollout" if stage.parts.get("rollout") is not None and stage.prompts else "data"
    if not hasattr(getattr(stage.data, "data", stage.data), "micro_batches") and group == "data":
        return f"data.rows_per_batch={change.rows} for {rows} (a smaller step)"
    return f"{group}.micro_batches={parts}: {change.rows} rows at a time for {rows}"


# In this order: first what changes no number, then what rounds the reference, then the moments.
REMEDIES: tuple[tuple[Callable[[Any, Change, Machine], Change], Callable[[Any, Change], str]], ...] = (
    (_with_recompute, lambda stage, change: "trainer.recompute=true"),
    (_with_fewer_rows, _rows_text),
    (_with_smaller_wave, lambda stage, change: f"rollout.max_rows={change.wave_rows}"),
    (_with_half_reference, lambda stage, change: "the reference's linear layers in BF16"),
    (_with_half_moments, lambda stage, change: "optim=adamw_bf16: the optimizer's moments in BF16"),
)
