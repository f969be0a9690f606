"""The strategy for whole models: what Lightning is told about processes that have met, and which parameters take part."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from r1_lightning.stages.ddp import Met, WholeModels, whole_models
from r1_lightning.types.processes import Processes
from tests.support.processes import in_processes


@dataclass(frozen=True)
class Here:
    rank: int
    count: int
    local_rank: int
    local_count: int


def test_the_environment_is_what_it_is_told() -> None:
    environment = Met(Here(5, 8, 1, 4))
    assert (environment.global_rank(), environment.world_size()) == (5, 8)
    assert (environment.local_rank(), environment.node_rank()) == (1, 1)
    environment.set_global_rank(0)
    environment.set_world_size(1)
    assert (environment.global_rank(), environment.world_size()) == (5, 8)
    assert environment.creates_processes_externally and not Met.detect()


def test_the_trainer_gets_one_device_per_process_of_a_machine() -> None:
    found = whole_models(torch.device("cpu"), Here(5, 8, 1, 4), 60)
    assert (found["devices"], found["num_nodes"], found["use_distributed_sampler"]) == (4, 2, False)
    strategy = found["strategy"]
    assert isinstance(strategy, WholeModels) and strategy.root_device == torch.device("cpu")
    assert strategy._timeout.total_seconds() == 60


class Stage(nn.Module):
    """Weights in use, weights that no loss reaches, and a frozen reference on another device than the CPU."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.used = nn.Linear(1, 1, bias=False)
        self.idle = nn.Linear(1, 1, bias=False)
        self.reference = nn.Linear(1, 1, bias=False, device="meta").requires_grad_(False)
        self.register_buffer("bias_of_experts", torch.tensor([float(rank)]))
        nn.init.constant_(self.used.weight, 1.0 + rank)

    def forward(self, factor: float) -> torch.Tensor:
        return self.used.weight.sum() * factor


def _gradient(processes: Processes) -> tuple[float, float, object, str]:
    strategy = WholeModels(torch.device("cpu"), Met(Here(processes.rank, 2, processes.rank, 2)), 30)
    model = strategy._setup_model(Stage(processes.rank))
    for _ in range(2):  # a parameter without a gradient in the first step would stop the second
        model.zero_grad()
        model(10.0**processes.rank).backward()
    stage = model.module
    return (
        float(stage.used.weight),
        float(stage.used.weight.grad),
        stage.idle.weight.grad,
        stage.reference.weight.device.type,
    )


def _bias_after_a_forward(processes: Processes) -> tuple[float, float]:
    strategy = WholeModels(torch.device("cpu"), Met(Here(processes.rank, 2, processes.rank, 2)), 30)
    model = strategy._setup_model(Stage(processes.rank))
    bias = model.module.bias_of_experts
    began = float(bias)
    bias.add_(processes.rank)
    model(1.0).backward()
    return began, float(bias)


def test_buffers_begin_as_those_of_rank_0_and_are_each_process_s_own_after_that() -> None:
    # Both begin as rank 0's, 0; what rank 1 then adds, 1, outlives a forward.
    assert in_processes(2, _bias_after_a_forward) == [(0.0, 0.0), (0.0, 1.0)]


def test_torch_is_given_only_what_every_allowed_version_has() -> None:
    # `forward_sync_buffers`, of torch 2.13, would stop 2.11 and 2.12; its former name, `broadcast_buffers`, warns in 2.13.
    assert WholeModels(torch.device("cpu"), Met(Here(0, 1, 0, 1)), 30)._ddp_kwargs == {"find_unused_parameters": True}


def test_gradients_are_means_over_processes_and_the_reference_takes_no_part() -> None:
    # Weights begin as rank 0's, 1; the gradients 1 and 10 have the mean 5.5; what has no gradient keeps none.
    assert in_processes(2, _gradient) == [(1.0, 5.5, None, "meta")] * 2
