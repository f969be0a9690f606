"""Bytes read per decoded token: the arithmetic against what a step's operators are given, and against the floor for real shapes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from r1_lightning.model import decode_cost, hf_attention, kv_cache
from r1_lightning.model.backbone import DeepSeekBackbone
from r1_lightning.model.cast_weights import cast_once
from r1_lightning.model.config import ModelConfig
from r1_lightning.model.cost import meta_backbone
from r1_lightning.model.decode_cost import floor_bytes, read_bytes, touched_share
from r1_lightning.model.decode_graph import StepGraph
from r1_lightning.model.gqa import GQAKind
from r1_lightning.model.hf_model import HFBackbone, HFModelConfig
from r1_lightning.model.precision import PlainPrecision
from r1_lightning.rollout.sampler import Sampler, SamplerSettings, SamplingConfig
from tests.model.tiny import randomise, tiny
from tests.support.commands import ROOT
from tests.support.hf_folders import DENSE

BF16, BLOCK, ROWS = PlainPrecision("bf16"), 8, 64
MOST = 1.3  # times the floor
HEADS = ModelConfig(vocab_size=61, d_model=32, n_layers=3, n_dense_layers=1, n_heads=4, d_ff_dense=40, d_ff_expert=16,
                    n_routed_experts=8, n_shared_experts=1, n_activated_experts=2, max_positions=64,
                    attention_kind=GQAKind(2, 8))  # fmt: skip
# The config.json of Qwen2.5-1.5B.
QWEN: dict[str, Any] = {
    "model_type": "qwen2", "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12,
    "num_key_value_heads": 2, "vocab_size": 151936, "max_position_embeddings": 131072, "rope_theta": 1000000.0,
    "rms_norm_eps": 1e-06, "tie_word_embeddings": True, "hidden_act": "silu", "use_sliding_window": False,
}  # fmt: skip


class _Read(TorchDispatchMode):
    """Adds up the bytes that operators take from given tensors; views read nothing, and a tensor given twice is read once."""

    def __init__(self, tensors: Iterable[Tensor], only: str = "") -> None:
        super().__init__()
        self.known = {tensor.untyped_storage().data_ptr() for tensor in tensors}
        self.only, self.total = only, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not func.is_view and self.only in func._schema.name and not func._schema.is_mutable:
            given = {(x.data_ptr(), x.numel()): x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
            own = [x for x in given.values() if x.untyped_storage().data_ptr() in self.known]
            self.total += sum(x.numel() * x.element_size() for x in own)
        return func(*args, **(kwargs or {}))


def made(kind: str) -> Any:
    if kind == "qwen2":
        model: Any = HFBackbone(HFModelConfig({"model_type": kind, **DENSE, "vocab_size": 61}), BF16)
    else:
        model = DeepSeekBackbone(tiny() if kind == "latents" else HEADS, BF16)
    randomise(model, 3)
    return model.eval()


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kv_cache, "columns_per_block", lambda device: BLOCK)
    monkeypatch.setattr(decode_cost, "COLUMN_BLOCK", BLOCK)
    monkeypatch.setattr(StepGraph, "is_possible", False)
    monkeypatch.setattr(hf_attention, "groups_heads", lambda device: True)


@pytest.mark.parametrize("kind", ["latents", "heads", "qwen2"])
@torch.no_grad()
def test_a_step_takes_the_weights_and_columns_that_are_counted(kind: str) -> None:
    """64 rows, which meet all experts."""
    model, counted = made(kind), read_bytes(made(kind), ROWS, 10)
    cache = model.new_cache(ROWS, 20)
    model.step(torch.randint(61, (ROWS, 9)), torch.ones(ROWS, 9, dtype=torch.bool), cache)
    new = (torch.randint(61, (ROWS, 1)), torch.ones(ROWS, 1, dtype=torch.bool), cache)
    with cast_once(model):
        embedding = (model.embedding if kind != "qwen2" else model.model.get_input_embeddings()).weight
        weights = [p for p in model.parameters() if p is not embedding and p is not model.head.weight]
        with _Read(weights) as read:
            hidden = model.step(*new).hidden[:, 0]
        with _Read([model.head.weight]) as of_head:
            model.unembed(hidden)
    looked_up = 4 * model.head.weight.shape[1]
    assert read.total / ROWS == pytest.approx(counted.weights + counted.experts - looked_up)
    assert of_head.total / ROWS == pytest.approx(counted.head)


@pytest.mark.parametrize("kind", ["latents", "heads", "qwen2"])
@torch.no_grad()
def test_attention_takes_the_columns_that_are_counted(kind: str) -> None:
    """Two blocks for 10 columns, once, however many heads share them."""
    model, counted = made(kind), read_bytes(made(kind), ROWS, 10)
    cache = model.new_cache(ROWS, 20)
    model.step(torch.randint(61, (ROWS, 9)), torch.ones(ROWS, 9, dtype=torch.bool), cache)
    layers = cache.keys_and_values.layers if kind == "qwen2" else []
    stored = cache.states + [part for layer in layers for part in (layer.keys, layer.values)]
    with _Read(stored) as read:
        model.step(torch.randint(61, (ROWS, 1)), torch.ones(ROWS, 1, dtype=torch.bool), cache)
    assert read.total / ROWS == pytest.approx(counted.cache)


@torch.no_grad()
def test_the_draw_takes_the_tables_that_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that is R x V, or its blocks; what a view of it is asked for is not more than one block."""
    model, vocabulary = DeepSeekBackbone(tiny(vocab_size=640), BF16), 640
    sampler = Sampler(model, SamplerSettings(SamplingConfig(), [0], 0, seed=7))
    seen = [0]

    class Tables(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            picks = func._schema.name in (
                "aten::gather",
                "aten::mm",
            )  # one number a row, one block; the head reads its weight
            if not func.is_view and not picks:
                given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
                seen[0] += sum(x.numel() * x.element_size() for x in given if x.numel() == ROWS * vocabulary)
            return func(*args, **(kwargs or {}))

    monkeypatch.setattr(Tensor, "is_cuda", property(lambda _: True), raising=False)
    with Tables():
        sampler._draw(torch.randn(ROWS, 32), torch.rand(ROWS))
    assert seen[0] == decode_cost.DRAW_READS * vocabulary * ROWS


def test_touched_experts_by_hand() -> None:
    """One token of two in eight touches a quarter; two tokens 1 - 0.75^2."""
    assert touched_share(1, 2, 8) == 0.25
    assert touched_share(2, 2, 8) == pytest.approx(0.4375)


def published(name: str) -> Any:
    """Qwen2.5-1.5B by `transformers`, or a shape of `configs/model`, without memory."""
    if name == "qwen2.5-1.5b":
        with torch.device("meta"):
            return HFBackbone(HFModelConfig(QWEN), BF16, is_drawn=False)
    fields = yaml.safe_load(Path(ROOT, "configs/model", f"{name}.yaml").read_text(encoding="utf-8"))
    fields.pop("_target_")
    return meta_backbone(ModelConfig(vocab_size=163840, **fields), BF16)


@pytest.mark.parametrize("rows", [32, 128, 512])
@pytest.mark.parametrize("context", [640, 1100, 4000])
@pytest.mark.parametrize("name", ["qwen2.5-1.5b", "moonlight_16b"])
def test_published_shapes_read_little_more_than_the_floor(
    name: str, rows: int, context: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode_cost, "COLUMN_BLOCK", kv_cache.COLUMN_BLOCK)
    model = published(name)
    found, floor = read_bytes(model, rows, context), floor_bytes(model, rows, context)
    assert 1.0 < found.total / floor < MOST


def test_the_floor_of_published_shapes_is_that_of_their_parameters() -> None:
    """Per row of one: 1.54 G weights (the head is the embedding), and 28 layers x 2 x 2 heads x 128 for a column."""
    model = published("qwen2.5-1.5b")
    assert floor_bytes(model, 1, 0) == pytest.approx(2 * 1.544e9, rel=1e-3)
    assert floor_bytes(model, 1, 10) - floor_bytes(model, 1, 0) == 10 * 2 * 28 * 2 * 2 * 128
    moonlight = published("moonlight_16b")
    assert floor_bytes(moonlight, 1, 10) - floor_bytes(moonlight, 1, 0) == 10 * 2 * 27 * 576
    everything = sum(p.numel() for p in moonlight.parameters()) - moonlight.embedding.weight.numel()
    assert floor_bytes(moonlight, 4096, 0) * 4096 == pytest.approx(2 * everything, rel=1e-3)
