"""A model held to sample from: with `trainer=fsdp` shares and a whole copy, which processes may use as often as they like."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from r1_lightning.functional.shards import is_sharded
from r1_lightning.run.build.gathering import held_to_sample
from r1_lightning.types.processes import Processes
from tests.support.miniature import Miniature, backbone
from tests.support.processes import in_processes

PROMPTS, KEYS = [[1, 2, 10], [3, 10]], torch.tensor([[0, 0, 0], [0, 1, 0]])


def _config(strategy: str) -> Any:
    return OmegaConf.create({"trainer": {"strategy": strategy, "accelerator": "cpu", "devices": 1}})


def test_one_process_samples_from_the_model_itself() -> None:
    model = backbone()
    with held_to_sample(model, _config("fsdp")) as whole:
        assert whole is model and not model.training
    assert model.training
    with held_to_sample(None, _config("fsdp")) as whole:  # another engine has it
        assert whole is None


def _sampled(processes: Processes, strategy: str) -> tuple[list[Any], bool, bool, bool]:
    """Each process samples once, and once more for its rank."""
    mini = Miniature()
    sampler = mini.sampler()
    with held_to_sample(mini.model, _config(strategy)) as whole:
        found = [sampler(PROMPTS, 1, KEYS).completion_ids.tolist() for _ in range(1 + processes.rank)]
        held = any(is_sharded(parameter) for parameter in whole.parameters())
    freed = all(parameter.is_meta for parameter in whole.parameters())
    return found, all(is_sharded(parameter) for parameter in mini.model.parameters()), held, freed


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_processes_sample_what_one_does_each_at_its_own_pace(strategy: str) -> None:
    """Divided weights stay divided beside the copy, which is freed at the end; the model of `ddp` is whole."""
    ((expected,), *_) = in_processes(1, _sampled, strategy)[0]
    divided = strategy == "fsdp"
    for rank, (found, is_divided, held, freed) in enumerate(in_processes(2, _sampled, strategy)):
        assert found == [expected] * (1 + rank)
        assert (is_divided, held, freed) == (divided, False, divided)
