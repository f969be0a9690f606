"""Parity of lightning attention with HuggingFace's MiniMaxLightningAttention: the same weights, to 1e-5 in FP32.

Over whole rows, over padded prompts followed by single tokens on either side's cache, and for packed documents, of which
HuggingFace sees each alone. Weights are random, norm weights are not ones, and blocks of both sides have other sizes.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from r1_lightning.model import lightning_attention as module
from r1_lightning.model.lightning_attention import LightningAttention, LightningKind
from r1_lightning.model.precision import PlainPrecision
from tests.model.tiny import normal, tiny

MAX_DIFFERENCE = 1e-5
LAYERS = 8
NONE = torch.empty(0)  # rotary tables, which lightning attention does not read
KIND = LightningKind()
CONFIG = tiny(n_layers=LAYERS, attention_kind="lightning", n_heads=4, v_head_dim=8, d_model=32)
SHAPES = [CONFIG, dataclasses.replace(CONFIG, n_heads=3, v_head_dim=20), dataclasses.replace(CONFIG, n_heads=8)]


def _twins(config: Any, layer: int, hf_block: int = 8) -> tuple[LightningAttention, Any]:
    from transformers import MiniMaxConfig
    from transformers.models.minimax.modeling_minimax import MiniMaxLightningAttention

    kinds = ["full_attention" if kind == "mla" else "linear_attention" for kind in config.attention_kinds]
    fields = MiniMaxConfig(
        hidden_size=config.d_model,
        num_hidden_layers=config.n_layers,
        num_attention_heads=config.n_heads,
        num_key_value_heads=config.n_heads,
        head_dim=config.lightning_head_dim,
        hidden_act="silu",
        block_size=hf_block,
        layer_types=kinds,
    )
    ours, theirs = (
        LightningAttention(config, PlainPrecision(), layer).eval(),
        MiniMaxLightningAttention(fields, layer).eval(),
    )
    for number, parameter in enumerate(ours.parameters()):
        random = normal(*parameter.shape, seed=number)
        parameter.data = random * parameter.shape[-1] ** -0.5 if parameter.dim() > 1 else 1 + 0.3 * random
    names = {"qkv": "qkv_proj", "gate": "output_gate", "norm": "norm", "out": "out_proj"}
    weights = {f"{names[name.split('.')[0]]}.weight": value for name, value in ours.state_dict().items()}
    missing, unexpected = theirs.load_state_dict(weights, strict=False)
    assert not unexpected and all("decay" in name or "slope" in name for name in missing)
    return ours, theirs


@pytest.mark.parametrize("layer", [0, 3, 6])
@pytest.mark.parametrize("config", SHAPES)
@torch.no_grad()
def test_whole_rows_agree(config, layer):
    ours, theirs = _twins(config, layer)
    torch.testing.assert_close(ours.slopes, theirs.slope_rate.flatten(), atol=0, rtol=1e-6)
    x = normal(2, 150, 32, seed=9)  # more than two of our blocks, and many of theirs
    expected = theirs(x, (NONE, NONE), None)[0]
    assert expected.std() > 0.1
    found = ours(x, NONE, NONE, KIND.row_mask(torch.ones(2, 150, dtype=torch.long)))
    assert (found - expected).abs().max() <= MAX_DIFFERENCE


@pytest.mark.parametrize("block", [5, 64])
@torch.no_grad()
def test_packed_documents_agree(block, monkeypatch):
    monkeypatch.setattr(module, "BLOCK_TOKENS", block)
    ours, theirs = _twins(CONFIG, 1)
    lengths, x = (17, 1, 30, 12), normal(1, 64, 32, seed=9)
    ids = torch.cat(
        [torch.full((length,), number) for number, length in enumerate(lengths, 1)] + [torch.zeros(4)]
    ).long()
    found = ours(x, NONE, NONE, KIND.row_mask(ids[None]))
    for number in range(1, len(lengths) + 1):
        alone = theirs(x[:, ids == number], (NONE, NONE), None)[0]
        assert (found[:, ids == number] - alone).abs().max() <= MAX_DIFFERENCE


@torch.no_grad()
def test_cached_steps_agree():
    """Prompts of 11, 4 and 1 tokens, padded on the left, then single tokens: outputs, and the states themselves."""
    from transformers.models.minimax.modeling_minimax import MiniMaxCache

    layer = 2
    ours, theirs = _twins(CONFIG, layer)
    x, start = normal(3, 17, 32, seed=9), torch.tensor([0, 7, 10])
    is_token = torch.arange(17) >= start[:, None]
    cache, state = MiniMaxCache(), ours.new_state(3, 17, torch.float32, x.device)
    for columns in (slice(0, 11), *(slice(t, t + 1) for t in range(11, 17))):
        new = is_token[:, columns]
        mask = KIND.new_columns_mask(CONFIG, new, NONE, torch.float32)
        found = ours.step(x[:, columns], NONE, NONE, mask, state, columns.start)
        expected, their_state = theirs(x[:, columns], (NONE, NONE), new if columns.start == 0 else None, cache)
        assert (found - expected)[new].abs().max() <= MAX_DIFFERENCE
        assert (state - their_state).abs().max() <= MAX_DIFFERENCE
    assert state.abs().max() > 0.1


def test_gradients_agree():
    """Of every weight, to within 1e-4 of its largest entry."""
    ours, theirs = _twins(CONFIG, 1)
    x, direction = normal(2, 70, 32, seed=9), normal(2, 70, 32, seed=10)
    (ours(x, NONE, NONE, KIND.row_mask(torch.ones(2, 70, dtype=torch.long))) * direction).sum().backward()
    (theirs(x, (NONE, NONE), None)[0] * direction).sum().backward()
    pairs = {"qkv": theirs.qkv_proj, "gate": theirs.output_gate, "norm": theirs.norm, "out": theirs.out_proj}
    for name, other in pairs.items():
        found, expected = getattr(ours, name).weight.grad, other.weight.grad
        assert (found - expected).abs().max() <= 1e-4 * expected.abs().max(), name


@torch.no_grad()
def test_the_decay_and_the_gates_own_projection_matter():
    """Another layer's slopes, or a gate from other weights, are seen by this comparison."""
    ours, theirs = _twins(CONFIG, 0)
    x = normal(2, 50, 32, seed=9)
    mask, expected = KIND.row_mask(torch.ones(2, 50, dtype=torch.long)), theirs(x, (NONE, NONE), None)[0]
    later, _ = _twins(CONFIG, 3)
    swapped, _ = _twins(CONFIG, 0)
    swapped.gate.weight.data = ours.qkv.weight[: len(ours.gate.weight)].clone()
    for other in (later, swapped):
        assert (other(x, NONE, NONE, mask) - expected).abs().max() > 1000 * MAX_DIFFERENCE
