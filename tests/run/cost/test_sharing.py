"""What one of several devices holds, by hand on a small model, and against what `fully_shard` gathers."""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace as Namespace
from typing import Any, Literal

import pytest
import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh

from r1_lightning.functional.shards import is_sharded, local
from r1_lightning.model.backbone import DeepSeekBackbone
from r1_lightning.model.cost import MicroBatch, meta_backbone
from r1_lightning.model.mtp import MTPModule
from r1_lightning.model.precision import PlainPrecision
from r1_lightning.model.sharding import blocks_of, shard
from r1_lightning.model.whole_copy import whole_model
from r1_lightning.run.cost.load import Wave
from r1_lightning.run.cost.sampling_cost import Memory
from r1_lightning.run.cost.sharing import gathered_of, lasting, own_batch, own_wave, sampling, starting, update
from r1_lightning.types.processes import Processes
from tests.model.tiny import pack, random_documents
from tests.support import miniature
from tests.support.processes import in_processes

CONFIG = miniature.backbone().config


def backbone(compute: str = "fp32") -> DeepSeekBackbone:
    return meta_backbone(CONFIG, PlainPrecision(compute))


def sizes(model: DeepSeekBackbone) -> tuple[int, int, int]:
    """Weights of the root, of the largest block, and of all blocks with MTP modules."""
    blocks = [sum(p.numel() for p in part.parameters()) for part in (*model.blocks, *model.mtp_modules)]
    total = sum(p.numel() for p in model.parameters())
    return total - sum(blocks), max(blocks), sum(blocks)


def test_what_is_gathered_in_fp32():
    """4 bytes for each weight, the root with its gradients; nothing is in another type."""
    model = backbone()
    root, block, blocks = sizes(model)
    gathered = gathered_of(model, 4)
    assert root == 2 * CONFIG.vocab_size * CONFIG.d_model + CONFIG.d_model  # embedding, head, final norm
    assert gathered == (8 * root, 4 * block, 4 * block, 4 * (root + blocks))


def test_what_is_gathered_in_bf16():
    """Matrices of linear layers and experts travel with 2 bytes; norms and the router, and what is added up, have 4."""
    model = backbone("bf16")
    root, _, _ = sizes(model)
    gathered = gathered_of(model, 2)

    def halves(module: torch.nn.Module) -> int:
        named = [(name, p.numel()) for name, p in module.named_parameters()]
        kept = sum(size for name, size in named if "norm" in name or "router" in name)
        return 2 * sum(size for _, size in named) + 2 * kept

    parts = (*model.blocks, *model.mtp_modules)
    assert gathered.block == max(map(halves, parts))
    assert gathered.gradients == max(halves(part) + 4 * sum(p.numel() for p in part.parameters()) for part in parts)
    assert gathered.root == 8 * root + 2 * model.head.weight.numel()  # autocast's copy of the head
    embedding_and_norm = 4 * (model.embedding.weight.numel() + CONFIG.d_model)
    assert gathered.whole == sum(map(halves, parts)) + 2 * model.head.weight.numel() + embedding_and_norm


def test_frozen_weights_have_no_gradients():
    model = backbone().requires_grad_(False)
    root, _, _ = sizes(model)
    assert (gathered_of(model, 4).gradients, gathered_of(model, 4).root) == (0, 4 * root)


def stage(model: DeepSeekBackbone, engine: Any = None) -> Any:
    return Namespace(backbone=model, module=Namespace(backbone=model), engine=engine)


LINES = [
    Memory("weights", 801, "FP32"),
    Memory("gradients", 800, "FP32"),
    Memory("optimizer state", 1600, "AdamW"),
    Memory("reference", 800, "a frozen copy"),
    Memory("judge", 500, "frozen"),
]


def test_lasting_memory_of_a_device():
    model = backbone()
    buffers = sum(b.numel() * b.element_size() for b in model.buffers())
    lines = [line._replace(size=line.size + buffers) if line.name == "weights" else line for line in LINES]
    shares = {line.name: line.size for line in lasting(stage(model), lines, 8, "fsdp")}
    assert buffers > 0
    assert shares == {
        "weights": 101,  # 801 / 8, rounded up
        "gradients": 100,
        "optimizer state": 200,
        "reference": 100,
        "judge": 500,  # whole
        "buffers": buffers,
    }
    whole = {line.name: line.size for line in lasting(stage(model), lines, 8, "ddp")}
    assert whole == {**{line.name: line.size for line in lines}, "gradients, in buckets": 800}


def test_a_start_fills_shares_and_holds_one_tensor_whole():
    """Of 800 + 800 bytes an eighth each, and the buffers. The largest tensor is gate and up of 4 experts, 16 x 16 each, in FP32."""
    model = backbone()
    buffers = sum(b.numel() * b.element_size() for b in model.buffers())
    lines = [line._replace(size=800 + buffers) if line.name == "weights" else line for line in LINES]
    trained = Namespace(**vars(stage(model)), lasting_memory=lambda: lines)
    (line,) = starting(trained, 8, "fsdp")
    assert (line.name, line.size) == ("at the start", 100 + 100 + buffers)
    assert "up to 0.0 MB" in line.note and max(p.nbytes for p in model.parameters()) == 4 * 4 * 16 * 16
    assert starting(trained, 8, "ddp") == []


def test_sampling_has_the_weights_once_whole():
    model = backbone("bf16")
    lines = [Memory("cache, sampling", 10, ""), Memory("weights in BF16, sampling", 99, "")]
    by_name = {line.name: line.size for line in sampling(stage(model), lines, "fsdp")}
    assert by_name == {"cache, sampling": 10, "weights, gathered to sample": gathered_of(model, 2).whole}
    assert sampling(stage(model), lines, "ddp") == lines
    assert sampling(stage(model, engine=object()), lines, "fsdp") == lines[:1]  # the engine has them
    assert sampling(stage(model), [], "fsdp") == []


def test_an_update_gathers_blocks_and_makes_no_whole_copy():
    model = backbone("bf16")
    gathered = gathered_of(model, 2)
    lines = [Memory("activations, update", 10, ""), Memory("weights in BF16, update", 99, "")]
    assert [line.size for line in update(stage(model), lines, "fsdp")] == [
        10,
        gathered.root,
        2 * gathered.block,
        gathered.gradients,
    ]
    assert update(stage(model), lines, "ddp") == lines


def test_shares_of_rows():
    """10 rows over 4 devices: 3 for the first. 4 at a time: one each."""
    batch = MicroBatch(10, 32, 100, 0)
    assert own_batch(batch, 10, 4) == MicroBatch(3, 32, 30, 0)
    assert own_batch(batch, 4, 4) == MicroBatch(1, 32, 10, 0)
    assert own_batch(batch, 10, 1) == batch


def test_shares_of_a_rollout():
    """32 prompts of 16 completions, 64 rows at a time. 4 devices have 8 prompts each, two waves of 64; 16 have 2, one of 32."""
    wave = Wave(64, 4, 20, 100, drawn=512)
    assert own_wave(wave, 64, 1) == own_wave(wave, 64, 4) == wave
    assert own_wave(wave, 64, 16) == Wave(32, 2, 20, 100, drawn=512)
    assert own_wave(wave, 16, 4) == Wave(16, 1, 20, 100, drawn=512)
    assert own_wave(wave, 64, 1000) == Wave(16, 1, 20, 100, drawn=512)  # a prompt is not divided
    assert own_wave(Wave(6, 2, 20, 100), 6, 2) == Wave(3, 1, 20, 100)  # all are drawn at once


@pytest.mark.parametrize("compute", ["fp32", "bf16"])
def test_more_devices_take_less(compute):
    model = backbone(compute)
    peaks = [sum(line.size for line in lasting(stage(model), LINES, devices, "fsdp")) for devices in (2, 4, 8)]
    assert peaks == sorted(peaks, reverse=True) and len(set(peaks)) == 3


def really_held(processes: Processes, compute: Literal["fp32", "bf16"]) -> dict[str, int]:
    """Bytes of this process's shares, of each block's weights while it computes, and of the copy to sample from."""
    model = miniature.backbone()
    model.precision = PlainPrecision(compute)
    shard(model, init_device_mesh("cpu", (processes.count,)))
    shares = bytes_of(local(p) for p in model.parameters())
    gathered: list[int] = []
    for block in blocks_of(model):
        inner = block.block if isinstance(block, MTPModule) else block
        inner.attention.register_forward_hook(lambda *_, block=block: gathered.append(bytes_of(block.parameters())))
    tokens = pack([random_documents((6, 8), CONFIG.vocab_size, 0)], 14)
    model.hidden(tokens)
    root = bytes_of(p for p in model.parameters() if not is_sharded(p))  # whole until the end of the backward
    with whole_model(model) as copy:
        whole = bytes_of(copy.parameters())
    return {"shares": shares, "block": max(gathered), "blocks": len(gathered), "root": root, "whole": whole}


def bytes_of(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@pytest.mark.slow
@pytest.mark.parametrize(("compute", "number"), [("fp32", 4), ("bf16", 2)])
def test_two_processes_hold_and_gather_what_is_said(compute, number):
    """By `fully_shard` itself: rows of a weight are divided, so that shares may differ by a row of each weight."""
    model = backbone(compute)
    said, weights = gathered_of(model, number), bytes_of(model.parameters())
    held = in_processes(2, really_held, compute)
    n_blocks = len(list(blocks_of(model)))
    assert [(each["block"], each["blocks"], each["whole"]) for each in held] == [(said.block, n_blocks, said.whole)] * 2
    assert held[0]["root"] == held[1]["root"] == 4 * sizes(model)[0]
    assert sum(each["shares"] for each in held) == weights
    assert held[0]["shares"] == pytest.approx(weights / 2, rel=0.05)
