"""Lightning's strategy for processes that divide every weight among them (FSDP2, `model/sharding.py`).

Lightning's own for this, `ModelParallelStrategy`, meets the other processes by itself, wants a stage to shard itself in a hook, and
writes checkpoints as folders with pickles. Ours is the strategy of whole models (`stages/ddp.py`) but for one thing: where that one
wraps the stage, this one shards what the stage holds, the model that trains, a frozen reference and a teacher. So the stage
is called, saved and resumed as it is with one process.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from r1_lightning.model.sharding import is_sharded_module, shard
from r1_lightning.rollout.teacher import Teacher
from r1_lightning.stages.ddp import Met, Place, WholeModels, arguments


class ShardedModels(WholeModels):
    """FSDP2 on `device` over all processes."""

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        """True: what a process reads of a checkpoint depends on what it holds."""
        return True

    def setup_environment(self) -> None:
        """Meet the others, and let a teacher be sharded when it is made: the data may ask it before the stage is set up."""
        super().setup_environment()
        self.mesh = init_device_mesh(self.root_device.type, (self.world_size,))
        shard_teacher(self.lightning_module, self.mesh)

    def configure_ddp(self) -> None:
        """Shard the models of the stage in place; the stage itself is not wrapped."""
        assert isinstance(self.model, LightningModule)
        shard_stage(self.model, self.mesh)


def shard_stage(stage: Any, mesh: DeviceMesh) -> None:
    """Shard the backbone of `stage` and, if they have no device of their own, its reference and, once it is made, its teacher."""
    shard(stage.backbone, mesh)
    reference = getattr(stage, "reference", None)
    if isinstance(reference, nn.Module) and getattr(reference, "device", None) is None:
        shard(reference.backbone, mesh)  # type: ignore[arg-type]
    shard_teacher(stage, mesh)


def shard_teacher(stage: Any, mesh: DeviceMesh) -> None:
    """Shard the teacher of `stage`, if it has one, as soon as it is made, unless the settings name a device for it.

    The settings decide, not where the model is found to be: a named GPU may be the one on which one of the processes works.
    """
    teacher = getattr(stage, "teacher", None)
    if isinstance(teacher, Teacher) and not teacher.has_own_device:
        teacher.after_making(partial(_shard_once, mesh=mesh))


def _shard_once(model: nn.Module, mesh: DeviceMesh) -> None:
    if not is_sharded_module(model):
        shard(model, mesh)


def sharded_models(device: torch.device, place: Place, timeout_s: int) -> dict[str, Any]:
    """The Trainer's arguments for processes that hold a share of every weight each."""
    return arguments(ShardedModels(device, Met(place), timeout_s), place)
