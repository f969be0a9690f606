"""What each of several devices holds: everything whole (`ddp`), or weights and their like sharded (`fsdp`, `model/sharding.py`).

Under `fsdp` a device holds 1 / N of weights, gradients, optimizer state, reference and teacher. Beside its shares it holds whole,
for a time: the root (embedding, norm, head) with its gradients while a micro-batch is computed; two blocks, one computed and the
next one on its way, and the gradients of one; and to sample a copy of all weights in the compute type, gathered once per rollout
(`model/whole_copy.py`). Whole all the time are buffers (experts' biases, rotary tables) and the models that judge. Rows are divided
among the devices under both. Under `ddp` the buckets in which gradients travel are one more copy of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from torch import nn

from r1_lightning.model.cost import MicroBatch
from r1_lightning.model.precision import FP32, weights_cast_by_autocast
from r1_lightning.model.sharding import blocks_of
from r1_lightning.run.config.keys import TEACHER
from r1_lightning.run.cost.load import Wave
from r1_lightning.run.cost.networks import number_of
from r1_lightning.run.cost.sampling_cost import Memory
from r1_lightning.run.cost.value_model import VALUE_MODEL

DDP, FSDP = "ddp", "fsdp"
CHECKPOINT = "checkpoint, while it is written"
IN_SHARES = ("weights", "gradients", "optimizer state", "reference", TEACHER, VALUE_MODEL, CHECKPOINT)
FILLED = ("weights", "reference", "buffers")  # what is there before the first step
CONVERTED = ("weights in BF16, update", "weights in BF16, sampling")  # whole copies that one process makes by autocast
IN_FLIGHT = 2  # blocks gathered at one time: one computed, one on its way
WHOLE_COPY = "weights, gathered to sample"


class Gathered(NamedTuple):
    """Bytes that are whole for a time: the root, a block's weights, a block's gradients, and all weights in the compute type."""

    root: int
    block: int
    gradients: int
    whole: int


def gathered_of(backbone: nn.Module, number: int) -> Gathered:
    """Measure what a sharded `backbone` gathers, with `number` bytes per element of the compute type.

    Blocks travel in the compute type, what autocast leaves alone in FP32. The root is FP32, of whose linear layers autocast makes
    copies. A block's gradients are of the compute type, and FP32 where they are added up over devices.
    """
    cast = {id(p) for p in weights_cast_by_autocast(backbone)}
    blocks = [list(block.parameters()) for block in blocks_of(backbone)]
    inside = {id(p) for block in blocks for p in block}
    root = [p for p in backbone.parameters() if id(p) not in inside]

    def size(parameters: Iterable[nn.Parameter], cast_number: int = number) -> int:
        return sum(p.numel() * (cast_number if id(p) in cast else FP32) for p in parameters)

    copies = 0 if number == FP32 else sum(p.numel() * number for p in root if id(p) in cast)
    trained = [[p for p in block if p.requires_grad] for block in blocks]
    reduced = 0 if number == FP32 else 1
    return Gathered(
        root=FP32 * sum(p.numel() * (1 + p.requires_grad) for p in root) + copies,
        block=max(map(size, blocks), default=0),
        gradients=max((size(ps) + reduced * size(ps, FP32) for ps in trained), default=0),
        whole=size(backbone.parameters()),
    )


def lasting(stage: Any, lines: Sequence[Memory], devices: int, strategy: str) -> list[Memory]:
    """Return the lasting memory of one of `devices`, from that of one process."""
    if strategy == DDP:
        gradients = sum(line.size for line in lines if line.name == "gradients")
        return [*lines, Memory("gradients, in buckets", gradients, "DDP's, as they travel")]
    buffers = sum(b.numel() * b.element_size() for b in _trained(stage).buffers())
    held = []
    for line in lines:
        size = line.size - (buffers if line.name == "weights" else 0)
        share = line._replace(size=math.ceil(size / devices), note=f"{line.note}, one of {devices:,} shares")
        held.append(share if line.name in IN_SHARES else line)
    return [*held, Memory("buffers", buffers, "whole: experts' biases, tables")]


def starting(stage: Any, devices: int, strategy: str) -> list[Memory]:
    """Return what a stage that trains fills under `fsdp` before its first step: shares of weights and reference.

    They are filled one tensor at a time (`run/build/models.py`): beside them one is whole, on the host, if it is drawn or of FP8.
    Files are mapped, and their pages are the system's.
    """
    if strategy == DDP or not hasattr(stage, "module"):
        return []
    held = lasting(stage, stage.lasting_memory(), devices, strategy)
    largest = max((p.numel() * p.element_size() for p in _trained(stage).parameters()), default=0)
    note = f"weights and reference; one tensor, up to {largest / 1e6:,.1f} MB, is whole on the host"
    return [Memory("at the start", sum(line.size for line in held if line.name in FILLED), note)]


def sampling(stage: Any, lines: Sequence[Memory], strategy: str) -> list[Memory]:
    """Return what sampling adds on one device, from what it adds in one process with that device's rows."""
    if strategy == DDP or not lines:
        return list(lines)
    rest = [line for line in lines if line.name not in CONVERTED]
    if getattr(stage, "engine", None) is not None:
        return rest
    gathered = gathered_of(stage.backbone, number_of(stage.backbone))
    return [*rest, Memory(WHOLE_COPY, gathered.whole, "whole, once per rollout")]


def update(stage: Any, lines: Sequence[Memory], strategy: str) -> list[Memory]:
    """Return what a forward and backward add on one device, from what they add in one process with that device's rows."""
    if strategy == DDP:
        return list(lines)
    gathered = gathered_of(_trained(stage), number_of(stage.backbone))
    return [
        *[line for line in lines if line.name not in CONVERTED],
        Memory("embedding and head, gathered", gathered.root, "whole, with their gradients"),
        Memory("blocks, gathered", IN_FLIGHT * gathered.block, "two at a time"),
        Memory("a block's gradients", gathered.gradients, "before they are shared out"),
    ]


def own_batch(batch: MicroBatch, at_a_time: int, devices: int) -> MicroBatch:
    """Return one device's share of `at_a_time` rows of a micro-batch, the largest share."""
    rows = math.ceil(at_a_time / devices)
    return replace(batch, rows=rows, targets=math.ceil(batch.targets * rows / batch.rows))


def own_wave(wave: Wave, most_rows: int, devices: int) -> Wave:
    """Return one device's largest wave: its share of the prompts, in waves of at most `most_rows`."""
    group = math.ceil(wave.rows / wave.prompts)
    share = math.ceil(max(wave.drawn, wave.rows) / group / devices) * group
    rows = min(wave.rows, most_rows, share)
    return replace(wave, rows=rows, prompts=math.ceil(rows / group))


def _trained(stage: Any) -> Any:
    """Return the module whose weights are sharded: a reward model has a head of its own."""
    return getattr(stage.module, "backbone", stage.backbone)
