"""Checkpoints of sharded stages: any number of processes goes on from them, and from those of a whole model."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh

from r1_lightning.functional.shards import is_sharded, whole
from r1_lightning.model.sharding import shard
from r1_lightning.stages.base import AdamWConfig
from r1_lightning.stages.muon import MuonConfig
from r1_lightning.stages.sharded_state import CITATION, put_aside, put_back
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.processes import ONE, Processes
from tests.model.tiny import pack, random_documents
from tests.support.miniature import CharTokenizer, backbone
from tests.support.processes import in_processes

LIMIT_S = 180.0  # a hang, not a slow machine


def trained(processes: Processes, config: AdamWConfig, seed: int, steps: int = 1) -> tuple[Any, torch.optim.Optimizer]:
    """A model with its optimizer after some steps on the same row everywhere."""
    model: Any = backbone(seed)
    if processes.count > 1:
        shard(model, init_device_mesh("cpu", (processes.count,)))
    optimizer = config.build(model)
    for _ in range(steps):
        step(model, optimizer)
    return model, optimizer


def step(model: Any, optimizer: torch.optim.Optimizer) -> None:
    batch = pack([random_documents((9,), CharTokenizer.vocab_size, seed=0)])
    model.token_logprobs(model.hidden(batch).hidden.flatten(0, 1), batch.token_ids.flatten())[0].mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def taken(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    return {"global_step": 1, "state_dict": model.state_dict(), "optimizer_states": [optimizer.state_dict()]}


def write(processes: Processes, config: AdamWConfig, folder: Path) -> dict[str, Any]:
    """A checkpoint after one step; what stays in it is what rank 0 writes to last.ckpt."""
    model, optimizer = trained(processes, config, seed=1)
    checkpoint = taken(model, optimizer)
    put_aside(checkpoint, folder, processes)
    written = copy.deepcopy(checkpoint)
    step(model, optimizer)  # nothing was taken from the optimizer itself
    return written


def go_on(processes: Processes, config: AdamWConfig, folder: Path, checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Load it into another model, take the next step, and return the weights."""
    model, optimizer = trained(processes, config, seed=2, steps=0)
    put_back(checkpoint, folder, model, [optimizer], processes)
    model.load_state_dict(checkpoint["state_dict"])
    optimizer.load_state_dict(checkpoint["optimizer_states"][0])
    if processes.count > 1:
        assert all(
            is_sharded(moments[name]) for moments in optimizer.state.values() for name in moments if name != "step"
        )
    step(model, optimizer)
    return {name: whole(tensor).detach() for name, tensor in model.state_dict().items()}


@pytest.mark.slow
@pytest.mark.parametrize("config", [AdamWConfig(lr=0.01), MuonConfig(lr=0.01)])
@pytest.mark.parametrize(("before", "after"), [(2, 1), (2, 3), (3, 2), (1, 2)])
def test_another_number_of_processes_goes_on(config: AdamWConfig, before: int, after: int, tmp_path: Path) -> None:
    checkpoint = in_processes(before, write, config, tmp_path, limit_s=LIMIT_S)[0]
    assert (CITATION in checkpoint) is (before > 1)
    expected, _ = trained(ONE, config, seed=1, steps=2)
    for found in in_processes(after, go_on, config, tmp_path, checkpoint, limit_s=LIMIT_S):
        for name, tensor in expected.state_dict().items():
            torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-6, msg=name)


def damaged(processes: Processes, config: AdamWConfig, folder: Path, checkpoint: dict[str, Any]) -> str:
    model, optimizer = trained(processes, config, seed=2, steps=0)
    with pytest.raises(InvalidInput) as refused:
        put_back(checkpoint, folder, model, [optimizer], processes)
    return str(refused.value)


@pytest.mark.slow
def test_a_missing_shard_is_named_in_every_process(tmp_path: Path) -> None:
    config = AdamWConfig(lr=0.01)
    checkpoint = in_processes(2, write, config, tmp_path, limit_s=LIMIT_S)[0]
    (tmp_path / "shards-1" / "rank-1-of-2.safetensors").unlink()
    for line in in_processes(2, damaged, config, tmp_path, checkpoint, limit_s=LIMIT_S):
        assert "shards-1/rank-1-of-2.safetensors' is not allowed: the file is missing" in line


def test_a_whole_stage_keeps_its_checkpoint_as_it_is(tmp_path: Path) -> None:
    model, optimizer = trained(ONE, AdamWConfig(lr=0.01), seed=1)
    checkpoint = taken(model, optimizer)
    put_aside(checkpoint, tmp_path, ONE)
    put_back(checkpoint, tmp_path, model, [optimizer], ONE)
    assert list(tmp_path.iterdir()) == [] and CITATION not in checkpoint
    assert checkpoint["state_dict"].keys() == model.state_dict().keys()
