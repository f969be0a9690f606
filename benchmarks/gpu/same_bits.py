"""Does a seed decide every bit on this device? A rollout drawn twice, and a training that is stopped and goes on.

The training is `stage=grpo` with its rollouts, optimizer and checkpoints, on a mixture with random weights: once without a stop,
once stopped after half of its steps and resumed by a new Trainer from the file that the stopped one left. Compared bit for bit:
token ids and log-probs of the two rollouts, the loss of every later step, and every weight. One bit that differs is a failure.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from benchmarks.gpu.device import Meter
from benchmarks.gpu.grpo import build_parts, endless, stage_of, trainer
from benchmarks.gpu.grpo_size import GrpoSize
from benchmarks.gpu.report import Row
from benchmarks.grpo_work import Witness
from benchmarks.pairs import deterministic
from r1_lightning.artefacts.checkpoint_file import checkpoint_to_resume
from r1_lightning.callbacks.checkpoint import ResumeCheckpoint
from r1_lightning.rollout.groups import rollout_keys
from r1_lightning.rollout.sampler import Sampler

WORK = "the same bits: a rollout drawn twice, training resumed"
STEPS, STOP_AFTER = 4, 2


@dataclass
class Losses(L.Callback):
    """The loss of every step, by its number; with `stop_after` training stops after so many steps, as at Ctrl-C."""

    stop_after: int | None = None
    found: dict[int, Tensor] = field(default_factory=dict)

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, *_: Any) -> None:
        self.found[trainer.global_step] = outputs["loss"].detach().cpu()
        if trainer.global_step == self.stop_after:
            trainer.should_stop = True


def measure(size: GrpoSize, meter: Meter) -> Iterator[Row]:
    """How many of the compared things are the same, and which are not."""
    parts = build_parts(size)
    with deterministic():
        pairs = {**_rollouts(parts, meter), **_trainings(parts, meter.device.type)}
    different = [name for name, (one, other) in pairs.items() if not same(one, other)]
    some = f"{', '.join(different[:3])}{', ...' if len(different) > 3 else ''}"
    yield Row(
        part="same_bits",
        work=WORK,
        unit=f"of {len(pairs)} tensors with the same bits",
        value=float(len(pairs) - len(different)),
        beside=f"different: {some}" if different else f"{STEPS} steps, stopped after {STOP_AFTER}",
        peak_bytes=meter.peak_bytes(),
        failed=bool(different),
    )


def same(one: Tensor, other: Tensor) -> bool:
    """Bit for bit: NaN is the same as NaN, and 0 is not the same as -0."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return (
        one.contiguous().view(torch.uint8).equal(other.contiguous().view(torch.uint8))
        if one.dim()
        else _scalar(one, other)
    )


def _scalar(one: Tensor, other: Tensor) -> bool:
    return same(one.reshape(1), other.reshape(1))


def _rollouts(parts: Mapping[str, Any], meter: Meter) -> dict[str, tuple[Tensor, Tensor]]:
    backbone = copy.deepcopy(parts["backbone"]).to(meter.device)
    meter.forget_peak()
    config, tokenizer = parts["rollout"], parts["tokenizer"]
    problems = [parts["source"].train_problem(0, index) for index in range(config.prompts_per_rollout)]
    prompts = tokenizer.encode_batch([parts["template"].render(problem.question) for problem in problems])
    sampler = Sampler(backbone, endless(parts))
    keys = rollout_keys(0, config.prompts_per_rollout, config.group_size)
    first, second = (sampler(prompts, config.group_size, keys) for _ in range(2))
    return {
        "token ids of the rollouts": (first.completion_ids, second.completion_ids),
        "log-probs of the rollouts": (first.policy_logprobs, second.policy_logprobs),
    }


def _trainings(parts: Mapping[str, Any], device_type: str) -> dict[str, tuple[Tensor, Tensor]]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        losses, weights = _train(parts, device_type, folder, None)
        _train(parts, device_type, folder, STOP_AFTER)
        later_losses, later_weights = _train(parts, device_type, folder, None)
    steps = range(STOP_AFTER + 1, STEPS + 1)
    pairs = {f"loss of step {step}": (losses[step], later_losses[step]) for step in steps}
    if set(later_losses) != set(steps):
        raise RuntimeError(f"the resumed training took steps {sorted(later_losses)}, not {list(steps)}")
    return pairs | {name: (weights[name], later_weights[name]) for name in weights}


def _train(
    parts: Mapping[str, Any], device_type: str, folder: Path, stop_after: int | None
) -> tuple[dict[int, Tensor], dict[str, Tensor]]:
    """Train from the checkpoint in `folder`, or from the start, up to `stop_after`; the losses by step, and the weights."""
    backbone = copy.deepcopy(parts["backbone"])
    module, data = stage_of(backbone, parts, Sampler(backbone, endless(parts)), Witness(), STEPS)
    losses = Losses(stop_after)
    resume = checkpoint_to_resume(folder)
    callbacks = [losses, ResumeCheckpoint(folder, STEPS)]
    one = trainer(device_type, STEPS, callbacks)
    one.fit(module, datamodule=data, ckpt_path=resume, weights_only=True if resume else None)
    return losses.found, {name: tensor.detach().cpu() for name, tensor in backbone.state_dict().items()}
