"""Lightning's strategy for several processes that each hold the whole model (DDP), and their environment as Lightning sees it.

The processes have met before Lightning is asked: the strategy joins their group, starts nobody, and installs none of Lightning's
handlers for SLURM's signals. Gradients are averaged over processes at the end of each optimizer step's backward.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Protocol

import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.pytorch.strategies import DDPStrategy
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from r1_lightning.stages.reference import PREFIX
from r1_lightning.stages.strategy import end_in_place


class Place(Protocol):
    """This process among all: `rank` of `count`, and `local_rank` of `local_count` on its machine."""

    @property
    def rank(self) -> int: ...
    @property
    def count(self) -> int: ...
    @property
    def local_rank(self) -> int: ...
    @property
    def local_count(self) -> int: ...


class Met(ClusterEnvironment):
    """Processes that somebody has started and that have met; the process group is initialised."""

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place = place

    @property
    def creates_processes_externally(self) -> bool:
        return True

    @property
    def main_address(self) -> str:
        raise AssertionError("the processes have met already")

    @property
    def main_port(self) -> int:
        raise AssertionError("the processes have met already")

    @staticmethod
    def detect() -> bool:
        return False  # it is given to the Trainer, never found

    def world_size(self) -> int:
        return self.place.count

    def set_world_size(self, size: int) -> None:
        """Do nothing: the number of processes is what it is."""

    def global_rank(self) -> int:
        return self.place.rank

    def set_global_rank(self, rank: int) -> None:
        """Do nothing, for the same reason."""

    def local_rank(self) -> int:
        return self.place.local_rank

    def node_rank(self) -> int:
        return (self.place.rank - self.place.local_rank) // self.place.local_count


class WholeModels(DDPStrategy):
    """DDP on `device`; a frozen reference in the stage takes no part, so that it may be on another device.

    Parameters without a gradient are looked for in every step: which ones get none depends on the stage (MTP modules without a
    loss, experts that nobody chose).
    """

    def __init__(self, device: torch.device, environment: Met, timeout_s: int) -> None:
        super().__init__(
            cluster_environment=environment,
            timeout=timedelta(seconds=timeout_s),
            find_unused_parameters=True,
        )
        self.device = device

    @property
    def root_device(self) -> torch.device:
        return self.device

    def _setup_model(self, model: nn.Module) -> DistributedDataParallel:
        names = [name for name, _ in (*model.named_parameters(), *model.named_buffers()) if name.startswith(PREFIX)]
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, names)
        whole = super()._setup_model(model)
        # Expert biases move alike in every process, as the load is summed over all. Set here, because the argument for it has one
        # name up to torch 2.12 and another from 2.13 on, which warns of the old one.
        whole.broadcast_buffers = False
        return whole

    def teardown(self) -> None:
        """End training without moving the model: the stage is evaluated there next."""
        if isinstance(self.model, DistributedDataParallel):
            self.model = self.lightning_module
        end_in_place(self)


def whole_models(device: torch.device, place: Place, timeout_s: int) -> dict[str, Any]:
    """The Trainer's arguments for processes that hold the whole model each."""
    return arguments(WholeModels(device, Met(place), timeout_s), place)


def arguments(strategy: WholeModels, place: Place) -> dict[str, Any]:
    """The Trainer's arguments for `strategy` in the processes of a run."""
    return {
        "strategy": strategy,
        "devices": place.local_count,
        "num_nodes": place.count // place.local_count,
        "use_distributed_sampler": False,  # our data divide themselves
    }
