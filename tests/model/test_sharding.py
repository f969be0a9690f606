"""FSDP2 beside one process: weights, gradient norms and experts' biases over ten steps, and what is gathered when.

Every test starts gloo processes on the CPU. The second model of each comparison is the same one, whole, trained by the same loop on
all rows in one process.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh

from r1_lightning.artefacts.weights import load_weights, save_weights
from r1_lightning.functional.expert_balance import updated_expert_bias
from r1_lightning.functional.shards import is_sharded, local, whole
from r1_lightning.model.backbone import DeepSeekBackbone
from r1_lightning.model.config import ModelConfig
from r1_lightning.model.gqa import GQAKind
from r1_lightning.model.hf_model import HFBackbone, HFModelConfig
from r1_lightning.model.precision import PlainPrecision
from r1_lightning.model.reward_head import RewardModel
from r1_lightning.model.sharding import shard
from r1_lightning.model.whole_copy import whole_model
from r1_lightning.stages.base import AdamWConfig
from r1_lightning.stages.muon import MuonConfig
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.processes import ONE, Processes
from r1_lightning.types.tensors import TokenBatch
from tests.model.tiny import pack, random_documents, randomise, tiny
from tests.support.hf_folders import DENSE
from tests.support.processes import in_processes

STEPS = 10
LIMIT_S = 240.0  # a hang, not a slow machine
ROWS = ((5, 9), (14,), (7, 3, 4), (2, 10))  # lengths of the documents of each row
SPEED = 0.01  # of the experts' biases

pytestmark = pytest.mark.slow


def rows_of(step: int, processes: Processes) -> TokenBatch:
    """This process's share of the four rows of a step."""
    documents = [random_documents(row, 61, 10 * step + number) for number, row in enumerate(ROWS)]
    return pack(processes.share(documents), 14)


def loss_of(model: Any, batch: TokenBatch) -> tuple[Tensor, Tensor]:
    """Next-token log-probs of trunk and MTP module, summed over the rows at hand and divided by a constant; and the expert load."""
    output = model.hidden(batch)
    targets = batch.token_ids.roll(-1, 1).flatten()
    sums = [model.token_logprobs(h.flatten(0, 1), targets)[0].sum() for h in (output.hidden, *output.mtp)]
    return -torch.stack(sums).sum() / 100, output.expert_load


def train(
    model: Any, processes: Processes, config: AdamWConfig, micro_batches: int = 1
) -> tuple[list[float], dict[str, Tensor]]:
    """Take ten steps; returns the gradient norms, and the gradients of the first step by name."""
    first: dict[str, Tensor] = {}
    optimizer, norms = config.build(model), []
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for step in range(STEPS):
        batch, load = rows_of(step, processes), torch.tensor(0)
        for rows in torch.arange(len(batch.token_ids)).chunk(micro_batches):
            part = TokenBatch(batch.token_ids[rows], batch.position_ids[rows], batch.document_ids[rows])
            loss, chosen = loss_of(model, part)
            (loss * processes.count).backward()
            load = load + chosen
        if not first:
            first = {name: whole(p.grad).clone() for name, p in model.named_parameters() if p.grad is not None}
        norms.append(float(whole(torch.nn.utils.clip_grad_norm_(parameters, 1.0))))
        optimizer.step()
        optimizer.zero_grad()
        if (bias := model.expert_bias()).numel():
            model.set_expert_bias(updated_expert_bias(bias, processes.sum(load), SPEED))
    return norms, first


def differences(
    processes: Processes, make: Callable[[], Any], config: AdamWConfig, micro_batches: int
) -> tuple[float, float, float, float]:
    """Train twice; returns the largest differences of weights, of norms (relative) and of biases, and how far a weight moved."""
    model, alone, start = make(), make(), make()
    shard(model, init_device_mesh("cpu", (processes.count,)))
    assert all(is_sharded(parameter) for parameter in model.parameters())
    norms, gradients = train(model, processes, config, micro_batches)
    # One process gets the ranks' rows as micro-batches: in BF16 the sum over all rows would be rounded once, not per rank.
    expected, known = train(alone, ONE, config, processes.count * micro_batches)
    assert gradients.keys() == known.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, known[name], rtol=0, atol=1e-6 * float(known[name].abs().max()), msg=name)
    found = {name: whole(parameter) for name, parameter in model.named_parameters()}
    pairs = [(found[name], parameter) for name, parameter in alone.named_parameters()]
    moved = max(float((a - b).abs().max()) for a, b in zip(start.parameters(), alone.parameters(), strict=True))
    bias = (model.expert_bias() - alone.expert_bias()).abs()
    return (
        max(float((a - b).abs().max()) for a, b in pairs),
        max(abs(a - b) / b for a, b in zip(norms, expected, strict=True)),
        float(bias.max()) if bias.numel() else 0.0,
        moved,
    )


def ours(compute: Any = "fp32", recompute: bool = False, **changes: Any) -> Any:
    model = DeepSeekBackbone(tiny(**changes), PlainPrecision(compute))
    randomise(model, 1)
    if recompute:
        model.recompute_blocks()
    return model


def gqa() -> Any:
    shape = {name: value for name, value in vars(tiny()).items() if name not in MLA_FIELDS}
    model = DeepSeekBackbone(ModelConfig(**shape, attention_kind=GQAKind(n_kv_heads=1, head_dim=16)))
    randomise(model, 1)
    return model


def theirs(**changes: Any) -> HFBackbone:
    config = {"model_type": "qwen2", **DENSE, "vocab_size": 61, "max_position_embeddings": 64, **changes}
    return HFBackbone(HFModelConfig(config), seed=1)


MLA_FIELDS = (
    "q_lora_rank", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "attention_kind"
)  # fmt: skip
MODELS: dict[str, Callable[[], Any]] = {
    "mla_moe_mtp": ours,
    "recompute": lambda: ours(recompute=True),
    "tied": lambda: ours(tie_embeddings=True),
    "gqa": gqa,
    "bf16": lambda: ours("bf16"),
    "transformers": theirs,
    "transformers_tied": lambda: theirs(tie_word_embeddings=True),
}
ADAMW = AdamWConfig(lr=0.003)


@pytest.mark.parametrize("model", MODELS)
def test_ten_steps_give_the_weights_of_one_process(model: str) -> None:
    for weights, norms, bias, moved in in_processes(2, differences, MODELS[model], ADAMW, 1, limit_s=LIMIT_S):
        assert weights < 1e-5 and norms < 1e-5 and bias == 0 and moved > 0.01


def test_muon_and_micro_batches() -> None:
    for weights, norms, bias, moved in in_processes(2, differences, ours, MuonConfig(lr=0.003), 2, limit_s=LIMIT_S):
        assert weights < 1e-5 and norms < 1e-5 and bias == 0 and moved > 0.01


def scored_between_steps(processes: Processes) -> None:
    """Score without gradients, train, score again: nothing stays gathered, and the moved weights are seen."""
    model, batch = ours(), rows_of(0, ONE)
    alone = copy.deepcopy(model)
    shard(model, init_device_mesh("cpu", (processes.count,)))
    for _ in range(2):
        with torch.no_grad():
            hidden = model.hidden(batch).hidden
            assert all(is_sharded(parameter) for parameter in model.parameters())
            assert torch.equal(hidden, alone.hidden(batch).hidden)
            assert torch.equal(model.unembed(hidden), alone.unembed(hidden))
            assert all(is_sharded(parameter) for parameter in model.parameters())
        train(model, processes, ADAMW)
        with torch.no_grad():
            for name, parameter in alone.named_parameters():
                parameter.copy_(whole(model.get_parameter(name)))
        alone.set_expert_bias(model.expert_bias())


def test_a_call_without_gradients_frees_what_it_gathered_and_sees_new_weights() -> None:
    assert in_processes(2, scored_between_steps, limit_s=LIMIT_S) == [None, None]


def judged(processes: Processes, compute: str) -> float:
    """Train a reward model whose backbone was divided before it, beside a whole one; returns how far a weight moved."""
    judges, ends = [], torch.tensor([4, 13])
    for is_divided in (True, False):
        model = ours(compute)
        mesh = init_device_mesh("cpu", (processes.count,))
        if is_divided:
            shard(model, mesh)
        judge = RewardModel(model)
        torch.nn.init.normal_(judge.score.weight, 0.0, 0.1, generator=torch.Generator().manual_seed(0))
        if is_divided:
            shard(judge, mesh)
            assert all(is_sharded(parameter) for parameter in judge.parameters())
        optimizer = ADAMW.build(judge)
        for step in range(STEPS):
            for rank in [processes.rank] if is_divided else range(processes.count):
                row = pack([random_documents((5, 9), 61, 10 * step + rank)], 14)
                (judge.scores(row, ends)[0].pow(2).sum() * (processes.count if is_divided else 1)).backward()
            optimizer.step()
            optimizer.zero_grad()
        judges.append(judge)
    divided, alone = judges
    for name, parameter in alone.named_parameters():
        torch.testing.assert_close(whole(divided.get_parameter(name)), parameter, rtol=0, atol=1e-5, msg=name)
    with torch.no_grad(), whole_model(divided) as copied:
        row = pack([random_documents((5, 9), 61, 7)], 14)
        found, expected = (model.backbone.hidden(row).hidden for model in (copied, alone))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 if compute == "fp32" else 0.1)
    start = torch.empty_like(alone.score.weight).normal_(0.0, 0.1, generator=torch.Generator().manual_seed(0))
    return float((alone.score.weight - start).abs().max())


@pytest.mark.parametrize("compute", ["fp32", "bf16"])
def test_a_reward_model_of_a_divided_backbone(compute: str) -> None:
    assert all(moved > 0.01 for moved in in_processes(2, judged, compute, limit_s=LIMIT_S))


def saved(processes: Processes, folder: str) -> int:
    """Save a sharded model, and load the file into a sharded and a whole one."""
    path = Path(folder) / "sharded.safetensors"
    model = ours(tie_embeddings=True)  # 61 rows: no number of ranks divides them
    save_weights(model, Path(folder) / f"whole-{processes.rank}.safetensors")
    mesh = init_device_mesh("cpu", (processes.count,))
    shard(model, mesh)
    save_weights(model, path)
    processes.barrier()
    other = DeepSeekBackbone(model.config, seed=5)
    shard(other, mesh)
    load_weights(other, path)
    for name, parameter in model.named_parameters():
        assert torch.equal(local(parameter), local(other.get_parameter(name))), name
    assert torch.equal(model.expert_bias(), other.expert_bias())
    return len(list(model.named_parameters()))


@pytest.mark.parametrize("count", [2, 3])
def test_saved_weights_are_those_of_one_process_to_the_bit(tmp_path: Path, count: int) -> None:
    in_processes(count, saved, str(tmp_path), limit_s=LIMIT_S)
    known = (tmp_path / "whole-0.safetensors").read_bytes()
    assert (tmp_path / "sharded.safetensors").read_bytes() == known


def saved_nowhere(processes: Processes, folder: str) -> str:
    model = ours()
    shard(model, init_device_mesh("cpu", (processes.count,)))
    with pytest.raises(InvalidInput) as refusal:
        save_weights(model, Path(folder) / "weights.safetensors")
    return str(refusal.value)


def test_where_the_main_process_cannot_write_nobody_waits(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    first, second = in_processes(2, saved_nowhere, str(tmp_path / "file"), limit_s=LIMIT_S)
    assert "main process could not write" in second and first != second
