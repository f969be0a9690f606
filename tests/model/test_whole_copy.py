"""Sampling from weights gathered once: the tokens of one process, also after a step, and nothing left behind."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh

from r1_lightning.model.backbone import DeepSeekBackbone
from r1_lightning.model.precision import PlainPrecision
from r1_lightning.model.sharding import shard
from r1_lightning.model.whole_copy import COPY, whole_model
from r1_lightning.rollout.groups import rollout_keys
from r1_lightning.rollout.mtp_drafts import DraftingSampler
from r1_lightning.rollout.sampler import Sampler, SamplerSettings, SamplingConfig
from r1_lightning.types.processes import Processes
from r1_lightning.types.tensors import Generation, TokenBatch
from tests.model.tiny import backbone, randomise, tiny
from tests.support.processes import in_processes

PROMPTS = [[3, 7, 9], [4], [8, 8, 1, 30, 12]]
LIMIT_S = 180.0  # a hang, not a slow machine


def made(compute: Any = "fp32", **changes: Any) -> DeepSeekBackbone:
    model = DeepSeekBackbone(tiny(**changes), PlainPrecision(compute))
    randomise(model, 3)
    return model


def moved(model: Any) -> Any:
    """One step away, experts' biases too."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05, fused=True)
    output = model.hidden(TokenBatch.of_whole_rows(torch.tensor([[3, 4, 5, 6]])))
    model.token_logprobs(output.hidden.flatten(0, 1), torch.tensor([4, 5, 6, 7]))[0].sum().backward()
    optimizer.step()
    model.set_expert_bias(model.expert_bias() - 0.5)
    return model


def completions(model: Any, kind: type[Sampler], own: range) -> Generation:
    sampler = kind(model, SamplerSettings(SamplingConfig(max_new_tokens=12), [0], 0, seed=7, max_rows=4))
    keys = rollout_keys(0, len(PROMPTS), 2)[2 * own.start : 2 * own.stop]
    generation = sampler([PROMPTS[number] for number in own], 2, keys)
    assert sampler.backbone is model and model.training
    return generation


def test_a_model_that_is_whole_is_itself_and_gets_its_mode_back() -> None:
    model = backbone().train()
    with whole_model(model) as given:
        assert given is model and not model.training
    assert model.training
    with whole_model(object()) as given:
        assert not hasattr(given, "training")


def sampled(processes: Processes, compute: Any, tied: bool, kind: type[Sampler]) -> None:
    """Sample the prompts of this rank, before and after a step, from pieces and from a whole model."""
    model, alone = made(compute, tie_embeddings=tied).train(), made(compute, tie_embeddings=tied).train()
    names = list(alone.state_dict())
    shard(model, init_device_mesh("cpu", (processes.count,)))
    assert list(model.state_dict()) == names
    own = processes.share(range(len(PROMPTS)))
    assert isinstance(own, range)
    for _ in range(2):
        found, known = completions(model, kind, own), completions(alone, kind, own)
        assert torch.equal(found.completion_ids, known.completion_ids)
        assert torch.equal(found.policy_logprobs, known.policy_logprobs)
        frame = getattr(model, COPY).frame
        assert all(parameter.is_meta for parameter in frame.parameters())
        moved(model), moved(alone)


@pytest.mark.slow
@pytest.mark.parametrize(("compute", "tied", "kind"), [
    ("fp32", False, Sampler), ("fp32", True, DraftingSampler), ("bf16", False, Sampler)
])  # fmt: skip
def test_shards_sample_the_tokens_of_a_whole_model(compute: str, tied: bool, kind: type[Sampler]) -> None:
    assert in_processes(2, sampled, compute, tied, kind, limit_s=LIMIT_S) == [None, None]


def opened(processes: Processes) -> tuple[bool, bool]:
    """Open twice; the inner opening gathers nothing, so that one rank may do it alone."""
    model = made("bf16")
    shard(model, init_device_mesh("cpu", (processes.count,)))
    with whole_model(model) as outer:
        types = {str(parameter.dtype) for parameter in outer.parameters()}
        assert types == {"torch.bfloat16", "torch.float32"} and outer.head.weight.dtype == torch.bfloat16
        assert outer.embedding.weight.dtype == torch.float32 and not outer.training
        if processes.is_main:
            with whole_model(model) as inner:
                assert inner is outer
            assert not outer.head.weight.is_meta
    return outer.head.weight.is_meta, outer.mtp_modules[0].block.attention.out.weight.is_meta


@pytest.mark.slow
def test_an_inner_opening_takes_the_weights_of_the_outer_one() -> None:
    assert in_processes(2, opened, limit_s=LIMIT_S) == [(True, True)] * 2
