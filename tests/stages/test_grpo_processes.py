"""The loss does not depend on how many processes share a minibatch: their gradients sum to the whole's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch import distributed as dist
from torch import multiprocessing as mp

from r1_lightning.functional.importance_sampling import CISPO
from r1_lightning.functional.policy_loss import TokenLevelGRPO
from r1_lightning.functional.sequence_policy_loss import GSPO
from r1_lightning.rollout.collate import collate, split_rows
from r1_lightning.stages.grpo import GRPOModule
from tests.support.miniature import PAD, Miniature, Sums, backbone, backwards, rollout_config

OBJECTIVES = {"token level": TokenLevelGRPO, "whole sequences": GSPO, "weighted log-probs": CISPO}


def gradients(objective: str, n_processes: int, rank: int, folder: Path) -> dict[str, Tensor]:
    """Of the share that process `rank` has of a minibatch of twelve completions."""
    mini = Miniature(max_steps=1, rollout=rollout_config())
    rollout = mini.maker()(0, 0, [Sums().train_problem(0, index) for index in range(3)])
    batch = collate(rollout, torch.arange(12), mini.rollout.row_tokens, PAD)
    module: GRPOModule = mini.grpo(objective=OBJECTIVES[objective](kl_coef=0.3))
    module.reference.backbone.load_state_dict(backbone(seed=9).state_dict())
    return backwards(module, [split_rows(batch, n_processes)[rank]], folder)[0].gradients


def _process(rank: int, n_processes: int, objective: str, folder: Path) -> None:
    """One of several: its own share alone, then the sum over all, which the first one keeps."""
    torch.set_num_threads(1)
    summed: dict[str, Any] = gradients(objective, n_processes, rank, folder / str(rank))
    address = f"file://{folder / 'meeting'}"
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=n_processes)
    for gradient in summed.values():
        dist.all_reduce(gradient)
    if rank == 0:
        torch.save(summed, folder / "summed.pt")
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_processes_sum_to_the_whole(objective: str, tmp_path: Path) -> None:
    whole = gradients(objective, 1, 0, tmp_path / "whole")
    mp.spawn(_process, (3, objective, tmp_path), nprocs=3)
    summed = torch.load(tmp_path / "summed.pt", weights_only=True)
    assert summed.keys() == whole.keys() and len(whole) > 10
    for name, gradient in whole.items():
        torch.testing.assert_close(summed[name], gradient, rtol=1e-4, atol=1e-6)
