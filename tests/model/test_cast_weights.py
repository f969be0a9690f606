"""Weights cast once: the bits of autocast's casts, none of which is left in a step, and the model is as before."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from r1_lightning.model import hf_cost
from r1_lightning.model.backbone import DeepSeekBackbone
from r1_lightning.model.cast_weights import cast_once
from r1_lightning.model.config import ModelConfig
from r1_lightning.model.cost import converted_weight_bytes
from r1_lightning.model.fp8_precision import FP8Precision
from r1_lightning.model.gqa import GQAKind
from r1_lightning.model.hf_model import HFBackbone, HFModelConfig
from r1_lightning.model.lora import LoraSettings
from r1_lightning.model.precision import PlainPrecision
from tests.model.tiny import randomise, tiny
from tests.support.hf_folders import DENSE

BF16 = PlainPrecision("bf16")
HEADS = ModelConfig(vocab_size=61, d_model=32, n_layers=2, n_dense_layers=1, n_heads=4, d_ff_dense=40, d_ff_expert=16,
                    n_routed_experts=8, n_shared_experts=1, n_activated_experts=2, max_positions=64,
                    attention_kind=GQAKind(2, 8))  # fmt: skip


def ours(config: ModelConfig | None = None, **changes: Any) -> DeepSeekBackbone:
    model = DeepSeekBackbone(config or tiny(**changes), BF16).eval()
    randomise(model, 3)
    return model


def theirs(lora: LoraSettings | None = None) -> HFBackbone:
    fields = {"model_type": "qwen2", **DENSE, "vocab_size": 61, "tie_word_embeddings": True}
    model = HFBackbone(HFModelConfig(fields, lora), BF16, seed=3).eval()
    randomise(model, 3)
    return model


MODELS = {
    "latents, experts": ours,
    "tied": lambda: ours(tie_embeddings=True),
    "heads": lambda: ours(HEADS),
    "hybrid": lambda: ours(n_layers=4, attention_kind="lightning", softmax_attention_every=4),
    "qwen2": theirs,
    "adapters": lambda: theirs(LoraSettings(2, 8)),
}


@torch.no_grad()
def logits_of(model: Any) -> Tensor:
    """Logits at a left-padded prompt's end and after three more tokens."""
    ids, is_token = torch.tensor([[0, 5, 9, 4, 4, 3, 1], [3, 7, 2, 1, 8, 6, 6]]), torch.ones(2, 7, dtype=torch.bool)
    is_token[0, 0] = False
    cache = model.new_cache(2, 10)
    found = [model.unembed(model.step(ids, is_token, cache).hidden[:, -1])]
    for token in (4, 8, 1):
        step = model.step(torch.full((2, 1), token), torch.ones(2, 1, dtype=torch.bool), cache)
        found.append(model.unembed(step.hidden[:, -1]))
    return torch.stack(found)


@pytest.mark.parametrize("kind", MODELS)
def test_the_bits_are_those_of_autocast_and_the_weights_come_back(kind: str) -> None:
    model = MODELS[kind]()
    before = {name: (id(p), p.requires_grad) for name, p in model.named_parameters(remove_duplicate=False)}
    expected = logits_of(model)
    with cast_once(model):
        found = logits_of(model)
        assert {p.dtype for p in model.parameters()} == {torch.float32, torch.bfloat16}
    assert torch.equal(found, expected) and expected.std() > 0.1
    assert {name: (id(p), p.requires_grad) for name, p in model.named_parameters(remove_duplicate=False)} == before


class _Casts(TorchDispatchMode):
    """Notes the shapes of what is cast to 16 bits."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: set[torch.Size] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._schema.name == "aten::_to_copy" and (kwargs or {}).get("dtype") is torch.bfloat16:
            self.shapes.add(args[0].shape)
        return func(*args, **(kwargs or {}))


def cast_weights(model: Any) -> set[torch.Size]:
    """Shapes of weights among what is cast in the steps."""
    shapes = {p.shape for p in model.parameters() if p.dim() > 1}
    with _Casts() as seen:
        logits_of(model)
    return shapes & seen.shapes


@pytest.mark.parametrize("kind", ["latents, experts", "tied", "qwen2"])
def test_no_step_casts_a_weight(kind: str) -> None:
    model = MODELS[kind]()
    assert len(cast_weights(model)) > 3
    with cast_once(model):
        assert cast_weights(model) == set()


def test_what_it_takes_is_what_the_dry_run_counts() -> None:
    model = ours()
    with cast_once(model, model.mtp_modules):
        held = sum(p.numel() * 2 for p in model.parameters() if p.dtype is torch.bfloat16)
        assert {p.dtype for p in model.mtp_modules.parameters()} == {torch.float32}
    assert held == converted_weight_bytes(model, 2, with_mtp=False)


def test_router_norms_and_embedding_keep_their_numbers() -> None:
    model = ours(tie_embeddings=True)
    with cast_once(model):
        kept = [name for name, p in model.named_parameters(remove_duplicate=False) if p.dtype is torch.float32]
        assert model.head.weight.dtype is torch.bfloat16
    assert all("router" in name or "norm" in name or "embedding" in name for name in kept) and len(kept) > 5
    assert model.head.weight is model.embedding.weight


def test_the_weights_come_back_after_an_error() -> None:
    model = ours()
    with pytest.raises(ZeroDivisionError), cast_once(model):
        1 / 0  # noqa: B018
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_an_inner_block_changes_nothing() -> None:
    model = ours()
    with cast_once(model):
        held = [id(p) for p in model.parameters()]
        with cast_once(model):
            assert [id(p) for p in model.parameters()] == held
        assert [id(p) for p in model.parameters()] == held


@pytest.mark.parametrize("precision", [PlainPrecision(), FP8Precision("emulate", compute="fp32")])
def test_nothing_is_cast_in_fp32(precision: Any) -> None:
    model = DeepSeekBackbone(tiny(), precision)
    held = [id(p) for p in model.parameters()]
    with cast_once(model), cast_once(object()), cast_once(nn.Linear(1, 1)):
        assert [id(p) for p in model.parameters()] == held


def test_layers_in_fp8_keep_theirs() -> None:
    """They cut the FP32 numbers into blocks; the head, which is not one of them, is cast."""
    model = DeepSeekBackbone(tiny(), FP8Precision("emulate"))
    with cast_once(model):
        assert [name for name, p in model.named_parameters() if p.dtype is torch.bfloat16] == ["head.weight"]


def test_no_weight_stays_swapped_when_memory_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a layer with a bias the weight is cast first; here the cast of the first bias fails."""
    model = theirs()
    before = {name: id(parameter) for name, parameter in model.named_parameters()}

    real = nn.Parameter

    def failing(data: Tensor, requires_grad: bool) -> nn.Parameter:
        if data.ndim == 1:
            raise torch.OutOfMemoryError("planted")
        return real(data, requires_grad)

    monkeypatch.setattr("r1_lightning.model.cast_weights.nn.Parameter", failing)
    with pytest.raises(torch.OutOfMemoryError, match="planted"), cast_once(model):
        pass
    assert {name: id(parameter) for name, parameter in model.named_parameters()} == before


def test_the_dry_run_counts_the_casts_of_frozen_weights() -> None:
    """Autocast keeps no copy of the weights below adapters, but here they are held as long as tokens are drawn."""
    model = theirs(LoraSettings(2, 8))
    frozen = {name for name, parameter in model.decoder.named_parameters() if not parameter.requires_grad}
    with cast_once(model):
        inside = dict(model.decoder.named_parameters())
        held = sum(inside[name].nbytes for name in frozen if inside[name].dtype == torch.bfloat16)
    assert held > 0
    counted = hf_cost.converted_weight_bytes(model, is_decoding=True) - hf_cost.converted_weight_bytes(model)
    assert counted == held
