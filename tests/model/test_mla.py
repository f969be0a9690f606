"""Multi-head latent attention: expanded in training, absorbed when sampling, and both equal to HuggingFace's."""

from __future__ import annotations

import math

import pytest
import torch

from r1_lightning.functional.masking import document_attention_mask
from r1_lightning.model.config import YarnConfig
from r1_lightning.model.masked_attention import DenseRows
from r1_lightning.model.mla import MLA, step_mask
from r1_lightning.model.precision import PlainPrecision
from r1_lightning.model.rope import rotate
from tests.model.tiny import angles, backbone, normal, tiny, twins

YARN = YarnConfig(factor=4.0, original_max_positions=16, beta_fast=2.0, beta_slow=0.1)
VARIANTS = [tiny(), tiny(q_lora_rank=None), tiny(yarn=YARN), tiny(n_heads=3, v_head_dim=6, qk_nope_head_dim=10)]


def _inputs(model, length: int = 21, rows: int = 2, seed: int = 5):
    """Activations, cos, sin and the mask of rows that hold two documents each (borders at 8 and 13)."""
    x = normal(rows, length, model.config.d_model, seed=seed)
    borders = torch.tensor([[8], [13]])[:rows]
    position_ids = torch.arange(length).expand(rows, length)
    document_ids = 1 + (position_ids >= borders).long()
    position_ids = torch.where(document_ids == 2, position_ids - borders, position_ids)
    return x, *angles(model, position_ids), document_attention_mask(document_ids)


@pytest.mark.parametrize("config", VARIANTS)
@torch.no_grad()
def test_against_huggingface(config):
    model, twin = twins(config)
    x, cos, sin, mask = _inputs(model)
    ours = model.blocks[0].attention(x, cos, sin, DenseRows(mask))
    both = (torch.cat([cos, cos], -1), torch.cat([sin, sin], -1))
    theirs, _ = twin.model.layers[0].self_attn(x, both, mask)
    assert ours.std() > 0.1
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@torch.no_grad()
def test_against_the_equations_head_by_head():
    """V3 eq 1-11 as a loop over heads and queries, in double precision where it matters."""
    model = backbone()
    config, layer = model.config, model.blocks[0].attention
    x, cos, sin, mask = _inputs(model, rows=1)
    latent, k_rope = layer.kv_down(x[0]).split([config.kv_lora_rank, config.qk_rope_head_dim], -1)  # eq 1, 3
    kv = layer.kv_up(layer.kv_norm(latent)).unflatten(-1, (config.n_heads, -1))  # eq 2, 5
    q = layer.q_up(layer.q_norm(layer.q_down(x[0]))).unflatten(-1, (config.n_heads, -1))  # eq 6-8
    k_rope = rotate(k_rope, cos[0], sin[0])
    heads = []
    for i in range(config.n_heads):
        nope = config.qk_nope_head_dim
        query = torch.cat([q[:, i, :nope], rotate(q[:, i, nope:], cos[0], sin[0])], -1).double()  # eq 9
        key = torch.cat([kv[:, i, :nope], k_rope], -1).double()  # eq 4
        output = torch.zeros(x.shape[1], config.v_head_dim, dtype=torch.float64)
        for t in range(x.shape[1]):
            seen = [j for j in range(x.shape[1]) if mask[0, 0, t, j] == 0]
            weights = (key[seen] @ query[t] / math.sqrt(nope + config.qk_rope_head_dim)).softmax(0)  # eq 10
            output[t] = weights @ kv[seen, i, nope:].double()
        heads.append(output)
    expected = torch.cat(heads, -1) @ layer.out.weight.double().T  # eq 11
    torch.testing.assert_close(layer(x, cos, sin, DenseRows(mask))[0].double(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("config", VARIANTS)
@pytest.mark.parametrize("chunks", [(21,), (1,) * 21, (7, 1, 1, 12)])
@torch.no_grad()
def test_absorbed_steps_equal_the_expanded_forward(config, chunks):
    model = backbone(config)
    layer = model.blocks[0].attention
    x, _, _, _ = _inputs(model)
    position_ids = torch.arange(21).expand(2, 21)
    cos, sin = angles(model, position_ids)
    whole = layer(x, cos, sin, DenseRows.of(torch.ones(2, 21, dtype=torch.long)))
    cache, outputs, start = model.new_cache(2, 21), [], 0
    for length in chunks:
        new = slice(start, start + length)
        _, attend = cache.advance(torch.ones(2, length, dtype=torch.bool))
        mask = step_mask(attend, config.n_heads, torch.float32)
        outputs.append(layer.step(x[:, new], cos[:, new], sin[:, new], mask, cache.states[0], start))
        start += length
    torch.testing.assert_close(torch.cat(outputs, 1), whole, atol=1e-5, rtol=0)


def test_later_tokens_and_other_documents_have_exactly_no_influence():
    model = backbone()
    x, cos, sin, mask = _inputs(model, rows=1)
    x.requires_grad_()
    model.blocks[0].attention(x, cos, sin, DenseRows(mask))[
        0, 10
    ].sum().backward()  # the third token of the second document
    influence = x.grad[0].abs().amax(-1)
    assert influence[:8].max() == 0.0
    assert influence[8:11].min() > 0.0
    assert influence[11:].max() == 0.0


@torch.no_grad()
def test_only_the_distance_of_positions_matters():
    model = backbone()
    layer, x = model.blocks[0].attention, normal(1, 9, 32)
    mask = DenseRows.of(torch.ones(1, 9, dtype=torch.long))
    here = layer(x, *angles(model, torch.arange(9)[None]), mask)
    there = layer(x, *angles(model, 40 + torch.arange(9)[None]), mask)
    spread = layer(x, *angles(model, 3 * torch.arange(9)[None]), mask)
    torch.testing.assert_close(here, there, atol=1e-5, rtol=0)
    assert (here - spread).abs().max() > 1e-2


def test_without_query_compression_there_is_one_query_matrix():
    names = {name for name, _ in MLA(tiny(q_lora_rank=None), PlainPrecision()).named_parameters()}
    assert names == {f"{name}.weight" for name in ("q_proj", "kv_down", "kv_norm", "kv_up", "out")}


def test_latent_norms_keep_their_own_eps():
    layer = MLA(tiny(norm_eps=1e-3), PlainPrecision())
    assert (layer.q_norm.eps, layer.kv_norm.eps) == (1e-6, 1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_mask_of_a_step_repeats_for_every_head_and_holds_no_infinity(dtype):
    attend = torch.tensor(
        [[[[True, False, False], [True, True, False]]], [[[False] * 3, [False, True, True]]]]
    )  # 2 x 1 x 2 x 3
    mask = step_mask(attend, 3, dtype)
    assert mask.shape == (2, 1, 6, 3) and mask.dtype == dtype and bool(mask.isfinite().all())
    assert torch.equal(mask[:, 0] == 0, attend[:, 0].repeat(1, 3, 1))  # head by head, both positions of each
