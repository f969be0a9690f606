"""A decoding step as one CUDA graph: all of its kernels are launched at once, in place of several hundred one by one.

A graph replays kernels on the memory on which they were recorded. So a step can be one only if its shapes do not change from token
to token (`LatentKVCache.width`), what changes is in tensors, and these are copied to where the recording found them. The first step
of a shape runs eagerly, which also gives libraries their memory; the second is recorded, replayed, and compared with the eager step
on the same input. A step that cannot be recorded (FP8 experts whose host reads the routes), or that differs, stays eager.

By the documentation of `torch.cuda.CUDAGraph`; it was not run on a GPU yet. `tests/model/test_decode_graph.py` puts a recording in
its place that runs the step again on the recorded tensors.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Step = Callable[..., tuple[Tensor, ...]]
# Of the largest number of an output: kernels are the same, but libraries may choose others for a recording.
MOST_DIFFERENCE = 1e-2


def record(step: Callable[[], tuple[Tensor, ...]]) -> tuple[Callable[[], None], tuple[Tensor, ...]]:
    """Record `step`; returns what replays it, and its outputs, which every replay overwrites.

    As `torch.cuda.graph` does, but without collecting garbage and emptying the allocator's cache, which take longer than a step: a
    wave records anew whenever rows leave. A thread that saves a checkpoint may use the GPU meanwhile.
    """
    graph: Any = torch.cuda.CUDAGraph()
    stream, current = torch.cuda.Stream(), torch.cuda.current_stream()
    stream.wait_stream(current)
    with torch.cuda.stream(stream):
        graph.capture_begin(capture_error_mode="thread_local")
        try:
            outputs = step()
        finally:
            graph.capture_end()
    current.wait_stream(stream)
    return graph.replay, outputs


class StepGraph:
    """Runs a decoding step whose tensors have one shape, from its second time on as a recording.

    `step` takes tensors alone and writes what it caches where its input says, so that running it twice changes nothing.
    """

    is_possible = True  # False for all once a recording has failed

    def __init__(self, step: Step) -> None:
        self.step = step
        self.runs = 0
        self.inputs: tuple[Tensor, ...] = ()
        self.outputs: tuple[Tensor, ...] = ()
        self.replay: Callable[[], None] | None = None

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs of `step` on `inputs`."""
        self.runs += 1
        if self.runs == 2 and StepGraph.is_possible:
            self._record(inputs)
        if self.replay is None:
            return self.step(*inputs)
        for kept, new in zip(self.inputs, inputs, strict=True):
            kept.copy_(new)
        self.replay()
        return tuple(x.clone() for x in self.outputs)

    def _record(self, inputs: tuple[Tensor, ...]) -> None:
        """Record the step and compare it with the eager one. The host waits, once per shape.

        Autocast frees the casts that it keeps when its context ends: a recording must neither read those of the eager step nor
        leave its own, which nothing has computed if the recording fails.
        """
        expected = self.step(*inputs)
        try:
            self.inputs = tuple(x.clone() for x in inputs)
            torch.clear_autocast_cache()
            try:
                replay, self.outputs = record(lambda: self.step(*self.inputs))
            finally:
                torch.clear_autocast_cache()
            replay()
            differs = any(_differ(*pair) for pair in zip(self.outputs, expected, strict=True))
            reason = "it computed other numbers" if differs else None
        except (RuntimeError, AssertionError, AttributeError) as error:  # what torch raises where it cannot record
            reason = str(error).partition("\n")[0]
        if reason is None:
            self.replay = replay
            return
        StepGraph.is_possible = False
        warnings.warn(f"decoding steps are not recorded as a CUDA graph: {reason}", stacklevel=2)


def _differ(found: Tensor, expected: Tensor) -> bool:
    """True if the floating numbers of a recording are not those of the eager step, to within rounding."""
    if not expected.is_floating_point() or not expected.numel():
        return False
    return not bool((found - expected).abs().max() <= MOST_DIFFERENCE * expected.abs().max())
