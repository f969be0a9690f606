"""Our layers computed by the package's own Python with emulated kernels, beside `precision=fp8_emulated`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from benchmarks.te.emulated import emulated_kernels
from benchmarks.te.layers import SMALL, Differs
from r1_lightning.model.backbone import DeepSeekBackbone
from r1_lightning.model.fp8_precision import FP8Precision
from r1_lightning.types.tensors import TokenBatch

INPUTS, OUTPUTS = 160, 48
ENDS = (70, 70, 103, 133)  # of experts' rows: one has none, the others are no multiples of 16
BOUND = 1e-5  # of the norm: sums in another order


def layers_compute() -> str:
    """Forward and both gradients, with scales that are powers of two and with others."""
    worst = 0.0
    for power_of_two in (True, False):
        theirs, ours = (_both_layers(backend, power_of_two) for backend in ("te", "emulate"))
        with torch.no_grad():
            for one, other in zip(theirs, ours, strict=True):
                one.weight.copy_(other.weight.normal_(generator=torch.Generator().manual_seed(0)))
        with emulated_kernels():
            found = _products(theirs)
        worst = max(worst, *_distances(found, _products(ours)).values())
    return f"133 rows, {INPUTS} to {OUTPUTS}; 4 experts with 70, 0, 33 and 30 rows: largest difference {worst:.0e} of the norm"


def _both_layers(backend: Any, power_of_two: bool) -> tuple[Any, Any]:
    precision = FP8Precision(backend, "fp32", power_of_two_scales=power_of_two)
    return precision.linear(INPUTS, OUTPUTS, True), precision.grouped_linear(len(ENDS), INPUTS, OUTPUTS, True)


def _products(layers: tuple[Any, Any]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    found: dict[str, Any] = {}
    ends = torch.tensor(ENDS, dtype=torch.int32)
    for name, layer, rest in zip(("linear", "experts"), layers, ((), (ends,)), strict=True):
        x = torch.randn(ENDS[-1], INPUTS, generator=generator).requires_grad_()
        y = layer(x, *rest)
        y.backward(torch.randn(y.shape, generator=generator))
        found |= {f"y of {name}": y.detach(), f"dx of {name}": x.grad, f"dw of {name}": layer.weight.grad}
    return found


def model_computes() -> str:
    """The hidden states of a batch of two documents, and the gradient of every weight, blocks recomputed and not."""
    ours = DeepSeekBackbone(SMALL, FP8Precision("emulate", "fp32"))
    wanted = _gradients(ours)
    worst = 0.0
    for recompute in (False, True):
        theirs = DeepSeekBackbone(SMALL, FP8Precision("te", "fp32"))
        theirs.load_state_dict(ours.state_dict())
        for block in theirs.blocks:
            block.recompute = recompute  # type: ignore[assignment]
        with emulated_kernels():
            worst = max(worst, *_distances(_gradients(theirs), wanted).values())
    return f"{len(wanted)} tensors: largest difference {worst:.0e} of the norm"


def _gradients(model: DeepSeekBackbone) -> dict[str, Tensor]:
    rows = torch.arange(22).view(2, 11)
    batch = TokenBatch(rows % 31, torch.arange(11).expand(2, 11).contiguous(), torch.ones_like(rows))
    hidden = model.hidden(batch).hidden
    hidden.square().mean().backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {"hidden states": hidden.detach(), **found}


def _distances(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, float]:
    """Distance over norm of each; raises Differs beyond `BOUND`."""
    if set(found) != set(wanted):
        raise Differs(f"gradients are missing: {sorted(set(found) ^ set(wanted))[:3]}")
    distances = {name: float((found[name] - wanted[name]).norm() / wanted[name].norm()) for name in wanted}
    far = [f"{name} by {distance:.1e}" for name, distance in distances.items() if not distance <= BOUND]
    if far:
        raise Differs(f"other numbers: {', '.join(far[:3])}")
    return distances
