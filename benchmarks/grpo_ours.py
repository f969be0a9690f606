"""Our side of the GRPO contests: the real stage and data module under Lightning's Trainer (see `grpo_step.py`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import lightning as L
import torch
from hydra.utils import instantiate
from lightning.pytorch.profilers import Profiler, SimpleProfiler
from torch import Tensor

from benchmarks.grpo_work import (
    STEPS,
    WARM_UP_STEPS,
    LightningClock,
    Witness,
    WitnessedReward,
    Work,
    check_moved,
    movement,
)
from benchmarks.pairs import Measurement
from benchmarks.setting import NEVER, World
from r1_lightning.data.rollout_data import GroupedRolloutsDataModule
from r1_lightning.rewards.combine import WeightedSum
from r1_lightning.rollout.native_sampler import NativeSampler
from r1_lightning.stages.grpo import GRPOModule


class _ForcedLengths(NativeSampler):
    """Ends row i of a rollout after `lengths[i]` tokens, whatever was drawn; a rollout is one wave."""

    lengths: Tensor

    def _has_ended(self, token_R: Tensor, rows_R: Tensor, position: int | Tensor) -> Tensor:
        return self.lengths[rows_R] == position + 1


# Lightning's names of what it times -> the phase; what it does besides, and the reward, counts as the rest of the step.
PHASES = {
    "[_TrainingEpochLoop].train_dataloader_next": "rollout and rewards",
    "[Strategy]SingleDeviceStrategy.training_step": "reference and forward",
    "[Strategy]SingleDeviceStrategy.backward": "backward",
}


def phases(world: World, work: Work, row_tokens: int, parts: int) -> Callable[[], Mapping[str, float]]:
    """Seconds of the measured step by phase, as Lightning's own profiler counts them."""

    def measure() -> Mapping[str, float]:
        profiler = SimpleProfiler()
        step_s = measurement(world, work, row_tokens, parts, profiler)()
        lists = {phase: profiler.recorded_durations[action] for action, phase in PHASES.items()}
        found = {phase: sum(each[len(each) * WARM_UP_STEPS // STEPS :]) for phase, each in lists.items()}
        return {**found, "clipping, optimizer and the rest": step_s - sum(found.values())}

    return measure


def measurement(world: World, work: Work, row_tokens: int, parts: int, profiler: Profiler | None = None) -> Measurement:
    """Seconds per step with packed rows of `row_tokens`, a minibatch in `parts`."""

    def measure() -> float:
        witness, backbone, shared, seed = Witness(), world.backbone(), world.parts, world.config.seed
        rollout = replace(shared["rollout"], row_tokens=row_tokens, micro_batches=parts)
        tokenizer = shared["tokenizer"]
        settings = replace(rollout.sampler_settings(tokenizer, seed), eos_ids=[NEVER])
        sampler = _ForcedLengths(backbone, settings)
        sampler.lengths = torch.tensor(work.lengths)
        data = GroupedRolloutsDataModule(
            shared["source"],
            tokenizer,
            shared["template"],
            sampler,
            WeightedSum([WitnessedReward(witness)]),
            rollout,
            seed,
            STEPS,
        )
        objective = instantiate(world.config.stage.objective)
        module = GRPOModule(
            backbone, shared["optim"], objective, STEPS, rollout.sampling_temperature, reference_refresh_steps=0
        )
        has_moved = movement(backbone)
        _lightning_trainer(witness, parts, profiler).fit(module, datamodule=data)
        check_moved(has_moved())
        return witness.seconds_per_step(work)

    return measure


def _lightning_trainer(witness: Witness, parts: int, profiler: Profiler | None) -> L.Trainer:
    return L.Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=STEPS,
        max_epochs=1,
        accumulate_grad_batches=parts,
        logger=False,
        callbacks=[LightningClock(witness)],
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        profiler=profiler,
    )


def long_enough(world: World) -> list[int]:
    """The candidates for the length of packed rows that hold the longest prompt with its completion."""
    longest = max(map(len, world.prompt_ids(STEPS))) + world.size.new_tokens
    return [row_tokens for row_tokens in world.size.row_tokens if row_tokens >= longest]
