"""A process of the weak-scaling benchmark: the real stage, data module and strategy of a GRPO run, with a clock at their seams.

It trains in one go and stops before the first step of every block until it is told to go on, so that no block has to warm up. The
length of each completion is forced and belongs to (rollout, process, row): in every arrangement the processes of one rank decode
completions of the same lengths.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from hydra.utils import instantiate
from torch import Tensor, distributed, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

from benchmarks.command import silence_warnings
from benchmarks.grpo_ours import long_enough
from benchmarks.grpo_work import UNEVEN_SCALE, Witness, WitnessedReward, check_moved, movement
from benchmarks.pairs import deterministic
from benchmarks.setting import NEVER, World
from benchmarks.weak_scaling import BLOCK_STEPS, MICRO_BATCHES, Role
from benchmarks.weak_scaling_clock import Clock, Step
from r1_lightning.callbacks.checkpoint import ResumeCheckpoint
from r1_lightning.data.rollout_data import GroupedRolloutsDataModule, RolloutDataset
from r1_lightning.rewards.combine import CombinedVerdict, WeightedSum
from r1_lightning.rollout.sampler import Sampler
from r1_lightning.run.build.torch_setup import keep_freed_memory
from r1_lightning.run.config.place import Place
from r1_lightning.stages.ddp import Met, WholeModels, arguments
from r1_lightning.stages.grpo import GRPOModule
from r1_lightning.types.processes import ONE, Processes, ProcessGroup
from r1_lightning.types.tensors import Generation, GRPOBatch
from r1_lightning.types.text import Completion, Problem

CLOCK = Clock()
TIMEOUT_S = 120


def lengths_of(rollout: int, prompts: int, group_size: int, limit: int) -> Tensor:
    """Return the lengths of a rollout's completions, prompts x group_size: many short, few long, a third of `limit` in the mean.

    Prompts differ, too: the mean of a prompt's completions lies between a half and three halves of the common one.
    """
    generator = torch.Generator().manual_seed(rollout)
    of_prompt = torch.rand(prompts, 1, generator=generator) + 0.5
    drawn = torch.empty(prompts, group_size).exponential_(1.0, generator=generator) * of_prompt * limit * UNEVEN_SCALE
    return drawn.ceil().clamp(1, limit).int()


class _Sampler(Sampler):
    """Forces the lengths; `first` is this process's first prompt among those of all processes, `prompts` is their number."""

    first: int
    prompts: int
    lengths: Tensor

    def __call__(
        self, prompts: Sequence[Sequence[int]], copies: int, keys: Tensor, *rest: Any, **more: Any
    ) -> Generation:
        with CLOCK.part("rollout"):
            table = lengths_of(int(keys[0, 0]), self.prompts, copies, self.config.max_new_tokens)
            self.lengths = table[self.first + keys[:, 1], keys[:, 2]]
            return super().__call__(prompts, copies, keys, *rest, **more)

    def _has_ended(self, token_R: Tensor, rows_R: Tensor, position: int | Tensor) -> Tensor:
        return self.lengths[rows_R] == position + 1


class _Reward(WeightedSum):
    def judge_many(self, pairs: Sequence[tuple[Problem, Completion]], step: int = 0) -> list[CombinedVerdict]:
        with CLOCK.part("rewards"):
            return super().judge_many(pairs, step)


class _Group(ProcessGroup):
    def sum(self, values: Tensor) -> Tensor:
        with CLOCK.meeting(values.nbytes):
            return super().sum(values)

    def collect(self, value: Any) -> list[Any]:
        with CLOCK.meeting(value):
            return super().collect(value)


class _Dataset(RolloutDataset):
    """Stops before the first step of a block, after it has printed the steps of the block before."""

    done: list[Step]

    def __getitem__(self, item: int) -> GRPOBatch:
        step, part = divmod(item, self.maker.config.micro_batches)
        if part == 0:
            self.boundary(step)
        with CLOCK.part("batches"):
            return super().__getitem__(item)

    def boundary(self, step: int) -> None:
        """End the step before `step`, wait for an order at a block's border, and begin."""
        ended = CLOCK.end()
        self.done += [] if ended is None else [ended]
        if step % BLOCK_STEPS == 0:
            print(json.dumps([vars(one) for one in self.done]), flush=True)
            self.done = []
            if not sys.stdin.readline():
                raise SystemExit(0)
        CLOCK.counts_bytes = step % BLOCK_STEPS == 0
        CLOCK.begin(step)


class _Module(GRPOModule):
    def training_step(self, batch: GRPOBatch, batch_idx: int) -> Tensor:
        with CLOCK.part("forward"):
            return super().training_step(batch, batch_idx)

    def backward(self, loss: Tensor, *arguments: Any, **keywords: Any) -> None:
        with CLOCK.part("backward"):
            super().backward(loss, *arguments, **keywords)
            CLOCK.landed()

    def optimizer_step(self, *arguments: Any, **keywords: Any) -> None:
        with CLOCK.part("optimizer"):
            super().optimizer_step(*arguments, **keywords)


class _Checkpoint(ResumeCheckpoint):
    def save(self, trainer: L.Trainer) -> None:
        with CLOCK.part("checkpoint"):
            super().save(trainer)

    def write(self, trainer: L.Trainer, waits: bool = True) -> None:
        with CLOCK.part("checkpoint"):
            super().write(trainer, waits)


class _WholeModels(WholeModels):
    def barrier(self, *arguments: Any, **keywords: Any) -> None:
        with CLOCK.meeting():
            super().barrier(*arguments, **keywords)

    def _setup_model(self, model: nn.Module) -> DistributedDataParallel:
        whole = super()._setup_model(model)

        def send(group: Any, bucket: Any) -> Any:
            CLOCK.launch(bucket.buffer().nbytes)
            return allreduce_hook(group, bucket)  # what DDP does without a hook

        # A lambda has no annotations, which torch compares with classes and which are text in this file.
        whole.register_comm_hook(None, lambda group, bucket: send(group, bucket))
        return whole


def _clock_lightning() -> None:
    """Time the one call that Lightning's loop makes by itself: before each micro-batch it tells whether SIGTERM came."""
    plain = distributed.broadcast

    def clocked(*arguments: Any, **keywords: Any) -> Any:
        with CLOCK.meeting():
            return plain(*arguments, **keywords)

    distributed.broadcast = clocked


@dataclass
class _Parts:
    data: GroupedRolloutsDataModule
    module: GRPOModule


def _parts(world: World, role: Role, processes: Processes, steps: int) -> _Parts:
    """The data module and the stage of this process."""
    shared, seed, own = world.parts, world.config.seed, world.size.prompts // processes.count
    settings = replace(shared["rollout"], row_tokens=long_enough(world)[0], micro_batches=MICRO_BATCHES)
    backbone, drawing = world.backbone(), settings.sampler_settings(shared["tokenizer"], seed)
    sampler = _Sampler(backbone, replace(drawing, eos_ids=[NEVER]))
    # Together, the keys number the prompts of all processes; alone, a process takes the lengths of its rank.
    sampler.first, sampler.prompts = (0 if processes.count > 1 else role.rank * own), own * 2
    reward = _Reward([*shared["reward"].rewards, WitnessedReward(Witness())])
    given = (shared["source"], shared["tokenizer"], shared["template"], sampler, reward, settings, seed, steps)
    data = GroupedRolloutsDataModule(*given, processes)
    plain = data.dataset
    data.dataset = _Dataset(plain.maker, plain.source, seed, steps, plain.optimizer_steps)
    data.dataset.done = []
    objective = instantiate(world.config.stage.objective)
    more: dict[str, Any] = {"reference_refresh_steps": 0, "processes": processes}
    return _Parts(data, _Module(backbone, shared["optim"], objective, steps, settings.sampling_temperature, **more))


def work(world: World, role: Role, steps: int, folder: Path) -> None:
    """Train for `steps` steps, a block whenever a line comes in; prints the steps of a block as a line of JSON."""
    silence_warnings()
    keep_freed_memory()
    torch.set_num_threads(1)
    processes: Processes = ONE
    strategy: dict[str, Any] = {"devices": 1}
    if role.count > 1:
        distributed.init_process_group(
            "gloo", init_method=f"file://{folder}/meeting", rank=role.rank, world_size=role.count
        )
        _clock_lightning()
        processes = _Group.of_group()
        place = Place(role.rank, role.count, role.rank, role.count)
        strategy = arguments(_WholeModels(torch.device("cpu"), Met(place), TIMEOUT_S), place)
    parts = _parts(world, role, processes, steps)
    own = folder if role.count > 1 else folder / str(role.rank)
    trainer = L.Trainer(
        accelerator="cpu",
        max_steps=steps,
        max_epochs=1,
        accumulate_grad_batches=MICRO_BATCHES,
        logger=False,
        callbacks=[_Checkpoint(own / "checkpoints", BLOCK_STEPS)],
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        default_root_dir=str(own),
        **strategy,
    )
    has_moved = movement(parts.module.backbone)
    with deterministic():
        trainer.fit(parts.module, datamodule=parts.data)
    check_moved(has_moved())
    assert isinstance(parts.data.dataset, _Dataset)
    parts.data.dataset.boundary(steps)
