"""Lightning's strategy for processes that divide every weight among them (FSDP2, `model/sharding.py`).

Lightning's own for this, `ModelParallelStrategy`, meets the other processes by itself, wants a stage to shard itself in a hook, and
writes checkpoints as folders with pickles. Ours is the strategy of whole models (`stages/ddp.py`) but for one thing: where that one
wraps the stage, this one shards what the stage holds, the model that trains, a frozen reference and a teacher. So the stage
is called, saved and resumed as it is with one process.
"""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from r1_lightning.model.sharding import shard
from r1_lightning.rollout.teacher import Teacher
from r1_lightning.stages.ddp import Met, Place, WholeModels, arguments


class ShardedModels(WholeModels):
    """FSDP2 on `device` over all processes."""

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        """True: what a process reads of a checkpoint depends on what it holds."""
        return True

    def configure_ddp(self) -> None:
        """Shard the models of the stage in place; the stage itself is not wrapped."""
        assert isinstance(self.model, LightningModule)
        mesh = init_device_mesh(self.root_device.type, (self.world_size,))
        shard_stage(self.model, mesh)


def shard_stage(stage: Any, mesh: DeviceMesh) -> None:
    """Shard the backbone of `stage`, its reference if that has no device of its own, and its teacher once it is made."""
    shard(stage.backbone, mesh)
    reference = getattr(stage, "reference", None)
    if isinstance(reference, nn.Module) and getattr(reference, "device", None) is None:
        shard(reference.backbone, mesh)  # type: ignore[arg-type]
    teacher = getattr(stage, "teacher", None)
    if isinstance(teacher, Teacher):
        teacher.after_making(lambda model: shard(model, mesh))


def sharded_models(device: torch.device, place: Place, timeout_s: int) -> dict[str, Any]:
    """The Trainer's arguments for processes that hold a share of every weight each."""
    return arguments(ShardedModels(device, Met(place), timeout_s), place)
