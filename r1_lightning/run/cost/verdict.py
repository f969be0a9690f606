"""Whether a stage fits a machine, and what to change if it does not: the last lines of a dry run.

The estimate's peak with a reserve of a quarter must fit. If it does not, remedies are tried one after the other, those that change
no number first, until it fits; each line says what the peak is then. With several devices it is that of one of them, which holds
everything, or shares of weights and their like (`sharing`), and computes its share of the rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from torch import nn

from r1_lightning.model.cost import MicroBatch
from r1_lightning.model.precision import BF16, FP32, weights_cast_by_autocast
from r1_lightning.run.config.declarations import line_of
from r1_lightning.run.cost import sharing
from r1_lightning.run.cost.load import Wave
from r1_lightning.run.cost.sampling_cost import Memory, sampling_bytes
from r1_lightning.run.cost.sharing import DDP, FSDP
from r1_lightning.run.cost.stage_cost import EmptyStage, update_bytes
from r1_lightning.stages.adamw_bf16 import BF16AdamWConfig
from r1_lightning.stages.base import AdamWConfig
from r1_lightning.stages.muon import MuonConfig
from r1_lightning.stages.muon_bf16 import BF16MuonConfig

GIB = 2**30
RESERVE = 1.25  # the estimate holds to within a quarter
MOST_DEVICES = 4096
LEAST_GAIN = 0.99  # a remedy that saves less than a hundredth is none
# By the class of the optimizer's settings, the option with the same optimizer and moments in BF16; "": there is none.
HALF_MOMENTS: dict[type, str] = {
    AdamWConfig: "adamw_bf16",
    MuonConfig: "muon_bf16",
    BF16AdamWConfig: "",
    BF16MuonConfig: "",
}
SHARED_OUT = {DDP: "the whole model on each", FSDP: "weights sharded over them"}


@dataclass(frozen=True)
class Machine:
    """`devices` of `memory` bytes each; a stage is on several of them by `strategy`."""

    devices: int
    memory: float
    name: str
    strategy: str = FSDP


@dataclass(frozen=True)
class Change:
    """What is changed, beside the stage as it is configured; rows None: as configured."""

    recompute: bool | None = None  # None: as configured
    rows: int | None = None
    wave_rows: int | None = None
    is_reference_half: bool = False
    are_moments_half: bool = False
    devices: int = 1
    strategy: str = FSDP


class DeviceMemory(NamedTuple):
    """What one device holds: all the time, while it samples, and while it computes an update."""

    lasting: list[Memory]
    sampling: list[Memory]
    update: list[Memory]

    @property
    def peak(self) -> int:
        """Bytes at one time: sampling and update take turns."""
        return sum(line.size for line in self.lasting) + max(sampling_bytes(self.sampling), update_bytes(self.update))


def device_memory(stage: Any, change: Change) -> DeviceMemory:
    """Return what one of `change.devices` devices holds."""
    saved = {
        "reference": saved_by_half_reference(stage) if change.is_reference_half else 0,
        "optimizer state": saved_by_half_moments(stage) if change.are_moments_half else 0,
    }
    lasting = [line._replace(size=line.size - saved.get(line.name, 0)) for line in stage.lasting_memory()]
    sampling = stage.sampling_memory(_wave(stage, change))
    if not isinstance(stage, EmptyStage):
        return DeviceMemory(lasting, sampling, [])  # a stage that only samples holds its models whole
    update = stage.update_memory(_batch(stage, change), change.recompute)
    if change.devices == 1:
        return DeviceMemory(lasting, sampling, update)
    return DeviceMemory(
        sharing.lasting(stage, lasting, change.devices, change.strategy),
        sharing.sampling(stage, sampling, change.strategy),
        sharing.update(stage, update, change.strategy),
    )


def peak_bytes(stage: Any, change: Change) -> int:
    """Return the peak memory of one of `change.devices` devices, in bytes."""
    return device_memory(stage, change).peak


def saved_by_half_reference(stage: Any) -> int:
    """Bytes that the frozen copy takes less with its linear layers in BF16; 0 if it is no copy, not here, or computes in BF16."""
    copy = getattr(getattr(getattr(stage, "module", None), "reference", None), "backbone", None)
    is_here = any(line.name == "reference" for line in stage.lasting_memory())
    if not is_here or not isinstance(copy, nn.Module) or stage.backbone.precision.compute != "fp32":
        return 0
    return sum((FP32 - BF16) * weight.numel() for weight in weights_cast_by_autocast(copy))


def saved_by_half_moments(stage: Any) -> int:
    """Bytes that the optimizer's moments take less in BF16; 0 for another optimizer, and for moments in BF16."""
    offers = isinstance(stage, EmptyStage) and half_moments(stage)
    sizes = {line.name: line.size for line in stage.lasting_memory()}
    return sizes.get("optimizer state", 0) * (FP32 - BF16) // FP32 if offers else 0


def half_moments(stage: Any) -> str:
    """The option of `optim` with the stage's optimizer and moments in BF16; "" where there is none."""
    return line_of(HALF_MOMENTS, type(stage.parts.get("optim"))) or ""


def _batch(stage: EmptyStage, change: Change) -> MicroBatch:
    batch = stage.micro_batch()
    return sharing.own_batch(batch, change.rows or batch.rows, change.devices)


def _wave(stage: Any, change: Change) -> Wave | None:
    wave: Wave | None = stage.wave()
    return None if wave is None else sharing.own_wave(wave, change.wave_rows or wave.rows, change.devices)


def verdict(stage: Any, machine: Machine) -> Iterator[str]:
    """Yield the lines about one machine: that the stage fits, or what to change, in this order, and by how much."""
    change = Change(devices=machine.devices, strategy=machine.strategy)
    peak = peak_bytes(stage, change)
    shared = f" each, {SHARED_OUT[machine.strategy]}," if machine.devices > 1 else ""
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
        peak = peak_bytes(stage, replace(change, devices=devices, strategy=FSDP))
        if peak * RESERVE <= machine.memory:
            what = f"and {devices:,} such devices, weights sharded over them"
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


def _smaller(size: int, fits: Callable[[int], bool], least: int = 1) -> int:
    """Return the largest of size / 2, size / 4, ... that fits, at least `least`."""
    while size > least:
        size = max(least, math.ceil(size / 2))
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
        machine.devices,  # a row for each
    )
    return replace(change, rows=rows)


def _with_smaller_wave(stage: Any, change: Change, machine: Machine) -> Change:
    wave = _wave(stage, change)
    if wave is None:
        return change
    rows = _smaller(
        wave.rows, lambda rows: peak_bytes(stage, replace(change, wave_rows=rows)) * RESERVE <= machine.memory
    )
    return replace(change, wave_rows=rows)


def _with_sharding(stage: Any, change: Change, machine: Machine) -> Change:
    return replace(change, strategy=FSDP)


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
    (_with_sharding, lambda stage, change: "trainer=fsdp: weights sharded over the devices"),
    (_with_half_reference, lambda stage, change: "the reference's linear layers in BF16"),
    (_with_half_moments, lambda stage, change: f"optim={half_moments(stage)}: the optimizer's moments in BF16"),
)
