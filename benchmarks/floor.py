"""The least that a contest's work costs on this machine, beside what it took: FLOPs and bytes over measured peaks.

A step is made of parts that follow each other. A part cannot end before its products are computed at the machine's peak, nor before
what it reads has come from memory at the machine's bandwidth, so its floor is the longer of the two, and that of a step is the sum.
FLOPs and bytes come from the shape alone (`model/cost.py`, `model/decode_cost.py`): each weight once per step and direction, a
group's prompt once for the group, the cache once per decoded token. Activations, softmax and draws cost nothing here.

Peaks are measured by the same command, after its contests, because another machine, or a busy one, has others: square products, far
larger than those of a small model, and a sum over a tensor that no cache holds. A kernel's own shape may allow less than the peak;
a floor says what no kernel could beat, and not what one reaches.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import mean
from typing import TYPE_CHECKING, Any

import torch

from r1_lightning.model.cost import (
    BF16,
    FP32,
    Parameters,
    count_parameters,
    forward_flops,
    parameter_bytes,
    sampling_flops,
)
from r1_lightning.model.decode_cost import floor_bytes

if TYPE_CHECKING:
    from benchmarks.setting import World

SIDE = 2048  # of the square matrices whose product is timed
READ_BYTES = 1 << 28
REPEATS = 5
BACKWARD = 2  # times the FLOPs of a forward
ADAMW_READS = 4  # gradient, weight and two moments
NUMBERS = {"fp32": FP32, "bf16": BF16}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Peaks:
    """FLOP/s of products by kind of number, and bytes/s of reading."""

    flops_per_s: Mapping[str, float]
    bytes_per_s: float

    def describe(self) -> str:
        products = ", ".join(f"{rate / 1e9:,.0f} GFLOP/s in {kind.upper()}" for kind, rate in self.flops_per_s.items())
        return f"{products}; {self.bytes_per_s / 1e9:.1f} GB/s read"


@dataclass(frozen=True)
class Part:
    """One part of a step: the products that it computes in numbers of `kind`, and the bytes that it reads."""

    name: str
    kind: str
    flops: float
    read_bytes: float

    def seconds(self, peaks: Peaks) -> float:
        """Return the least time that this part takes."""
        return max(self.flops / peaks.flops_per_s[self.kind], self.read_bytes / peaks.bytes_per_s)


def floor_s(parts: Sequence[Part], peaks: Peaks) -> float:
    """Return the least time that a step of `parts` takes."""
    return sum(part.seconds(peaks) for part in parts)


def measured_peaks() -> Peaks:
    """Measure the machine as it is now, with torch's threads: the best of a few repetitions."""
    matrices = {kind: torch.ones(SIDE, SIDE, dtype=dtype) for kind, dtype in DTYPES.items()}
    rates = {kind: 2 * SIDE**3 / _least_s(partial(torch.mm, matrix, matrix)) for kind, matrix in matrices.items()}
    read = torch.ones(READ_BYTES // FP32)
    return Peaks(rates, READ_BYTES / _least_s(read.sum))


def _least_s(work: Callable[[], Any]) -> float:
    def timed() -> float:
        start_s = time.perf_counter()
        work()
        return time.perf_counter() - start_s

    return min(timed() for _ in range(REPEATS))


def training_parts(world: World, tokens: int, row_tokens: int) -> list[Part]:
    """Return the parts of an optimizer step over `tokens` tokens in rows of one document."""
    config, counts, weights = _shape(world)
    forward = forward_flops(config, counts, tokens, tokens, row_tokens / 2)
    both = Part("forward and backward", world.precision, (1 + BACKWARD) * forward, 2 * weights)
    return [both, _optimizer(weights)]


def sampling_part(world: World, kind: str, new_tokens: float) -> Part:
    """Return the sampling of a rollout whose completions have `new_tokens` tokens on average, in numbers of `kind`."""
    config, counts, _ = _shape(world)
    size, prompt = world.size, _prompt_tokens(world)
    flops = sampling_flops(config, counts, size.prompts, size.group_size, prompt, new_tokens)
    per_token = floor_bytes(world.parts["backbone"], size.completions, round(prompt + new_tokens / 2))
    read_bytes = per_token * NUMBERS[kind] / BF16 * size.completions * new_tokens
    return Part("rollout", kind, flops, read_bytes)


def grpo_parts(world: World, new_tokens: float) -> list[Part]:
    """Return the parts of a GRPO step: a rollout, the reference's forward, the policy's forward and backward, the optimizer."""
    config, counts, weights = _shape(world)
    size, prompt = world.size, _prompt_tokens(world)
    drawn = size.group_size * new_tokens
    context = (prompt * prompt / 2 + drawn * (prompt + new_tokens / 2)) / (prompt + drawn)  # of a token, on average
    tokens, targets = size.prompts * (prompt + drawn), size.prompts * drawn
    forward = forward_flops(config, counts, tokens, targets, context)
    return [
        sampling_part(world, world.decode or world.precision, new_tokens),
        Part("reference", world.precision, forward, weights),
        Part("forward and backward", world.precision, (1 + BACKWARD) * forward, 2 * weights),
        _optimizer(weights),
    ]


def _optimizer(weight_bytes: int) -> Part:
    return Part("optimizer", "fp32", 0.0, ADAMW_READS * weight_bytes)


def _shape(world: World) -> tuple[Any, Parameters, int]:
    backbone = world.parts["backbone"]
    return backbone.config, count_parameters(backbone), parameter_bytes(backbone)


def _prompt_tokens(world: World) -> float:
    return mean(map(len, world.prompt_ids(rollouts=1)))
