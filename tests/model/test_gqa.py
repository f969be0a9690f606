"""Grouped-query attention: parity with Llama's, cached steps, what it costs, and a run from the command line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from r1_lightning.functional.masking import document_attention_mask, targets_ahead
from r1_lightning.model.backbone import DeepSeekBackbone
from r1_lightning.model.cache_sizes import own_elements
from r1_lightning.model.config import ModelConfig, YarnConfig
from r1_lightning.model.cost import (
    MicroBatch,
    activation_bytes,
    converted_weight_bytes,
    count_parameters,
    forward_flops,
    is_attention_fused,
    meta_backbone,
    prefill_bytes,
    sampling_flops,
)
from r1_lightning.model.gqa import GQAKind, GroupedQueryAttention
from r1_lightning.model.hf_config import config_to_hf
from r1_lightning.model.masked_attention import DenseRows
from r1_lightning.model.precision import PlainPrecision
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.tensors import TokenBatch
from tests.model.tiny import angles, backbone, left_pad, normal, pack, random_documents
from tests.support.commands import folder, train
from tests.support.memory import LiveTensors, saved_bytes

SHAPE: dict[str, Any] = {
    "vocab_size": 61, "d_model": 32, "n_layers": 3, "n_dense_layers": 1, "n_heads": 4, "d_ff_dense": 40,
    "d_ff_expert": 16, "n_routed_experts": 8, "n_shared_experts": 1, "n_activated_experts": 2, "max_positions": 64,
}  # fmt: skip
YARN = YarnConfig(factor=4.0, original_max_positions=16, beta_fast=2.0, beta_slow=0.1)


def shape(n_kv_heads: int = 2, head_dim: int = 12, **changes: Any) -> ModelConfig:
    return ModelConfig(**{**SHAPE, **changes}, attention_kind=GQAKind(n_kv_heads, head_dim))


VARIANTS = [shape(), shape(1), shape(4), shape(yarn=YARN), shape(3, 6, n_heads=6, d_model=48, mtp_depth=2)]


# --------------------------------------------------------------------------------------------------- what it computes


def llama_twin(config: ModelConfig, layer: GroupedQueryAttention) -> tuple[Any, Any]:
    """Llama's attention with the weights of `layer`, and its rotary embedding.

    Llama turns element i of a head with element i + H / 2, where here neighbours 2i and 2i + 1 are turned.
    """
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaAttention, LlamaRotaryEmbedding

    kind, yarn = config.attention_kind, config.yarn
    assert isinstance(kind, GQAKind)
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": config.rope_theta}
    if yarn is not None:
        rope |= {"rope_type": "yarn", "factor": yarn.factor, "beta_fast": yarn.beta_fast, "beta_slow": yarn.beta_slow}
        rope |= {"original_max_position_embeddings": yarn.original_max_positions}
    fields = LlamaConfig(
        hidden_size=config.d_model,
        num_attention_heads=config.n_heads,
        num_key_value_heads=kind.n_kv_heads,
        head_dim=kind.head_dim,
        max_position_embeddings=config.max_positions,
        rope_parameters=rope,
        attn_implementation="eager",
    )
    twin = LlamaAttention(fields, 0).eval()

    def halves(weight: Tensor, heads: int) -> Tensor:
        return weight.view(heads, -1, 2, config.d_model).transpose(1, 2).reshape(-1, config.d_model)

    k, v = layer.kv_proj.weight.chunk(2)
    weights = {"q": halves(layer.q_proj.weight, config.n_heads), "k": halves(k, kind.n_kv_heads), "v": v}
    weights["o"] = layer.out.weight
    twin.load_state_dict({f"{name}_proj.weight": weight for name, weight in weights.items()}, strict=True)
    return twin, LlamaRotaryEmbedding(fields)


@pytest.mark.parametrize("config", VARIANTS)
@torch.no_grad()
def test_against_llama(config: ModelConfig) -> None:
    """Rows of two documents each, borders at 8 and 13, positions beyond the original context of YaRN."""
    model = backbone(config)
    layer = model.blocks[0].attention
    twin, rotary = llama_twin(config, layer)
    x, position_ids = normal(2, 41, config.d_model, seed=5), torch.arange(41).expand(2, 41)
    borders = torch.tensor([[8], [13]])
    document_ids = 1 + (position_ids >= borders).long()
    position_ids = torch.where(document_ids == 2, position_ids - borders, position_ids)
    mask = document_attention_mask(document_ids)
    ours = layer(x, *angles(model, position_ids), DenseRows(mask))
    theirs, _ = twin(x, rotary(x, position_ids), mask)
    assert ours.std() > 0.1
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("config", VARIANTS)
@pytest.mark.parametrize("chunks", [(1,) * 5, (2, 3), (4, 1)])
@torch.no_grad()
def test_steps_after_a_left_padded_prefill_have_the_logits_of_the_forward(config: ModelConfig, chunks: Any) -> None:
    model = backbone(config)
    prompts, new = random_documents([9, 1, 4], 61, seed=1), torch.tensor(random_documents([5] * 3, 61, seed=2))
    cache = model.new_cache(3, 14)
    hidden, start = [model.step(*left_pad(prompts), cache).hidden], 0
    for length in chunks:
        columns = new[:, start : start + length]
        hidden.append(model.step(columns, torch.ones_like(columns, dtype=torch.bool), cache).hidden)
        start += length
    stepped = model.unembed(torch.cat(hidden, 1))
    assert stepped.std() > 0.1
    for row, prompt in enumerate(prompts):
        whole = model.unembed(model.hidden(pack([[prompt + new[row].tolist()]])).hidden[0])
        torch.testing.assert_close(stepped[row, -len(whole) :], whole, atol=1e-5, rtol=0)


@torch.no_grad()
def test_refused_drafts_and_dropped_rows_leave_nothing_behind() -> None:
    """The second of two tokens is taken back in row 0, gaps are closed, row 1 leaves: the rest goes on as if alone."""
    model = backbone(shape())
    prompts = random_documents([6, 2], 61, seed=1)
    cache = model.new_cache(2, 12)
    model.step(*left_pad(prompts), cache)
    model.step(torch.tensor([[5, 6], [7, 8]]), torch.ones(2, 2, dtype=torch.bool), cache)
    cache.forget_newest(torch.tensor([True, False]))
    cache.close_gaps()
    cache.select_rows(torch.tensor([0]))
    last = model.step(torch.tensor([[9]]), torch.ones(1, 1, dtype=torch.bool), cache).hidden[0, 0]
    whole = model.hidden(pack([[[*prompts[0], 5, 9]]])).hidden[0, -1]
    torch.testing.assert_close(last, whole, atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_mtp_module_steps_on_a_cache_of_its_own() -> None:
    model, tokens = backbone(shape()), torch.tensor(random_documents([9], 61, seed=3))
    whole, cache = model.hidden(TokenBatch.of_whole_rows(tokens)), model.new_mtp_cache(1, 8)
    for start, stop in ((0, 5), (5, 8)):
        new = slice(start, stop)
        is_token = torch.ones(1, stop - start, dtype=torch.bool)
        found = model.step_mtp(whole.hidden[:, new], tokens[:, start + 1 : stop + 1], is_token, cache)
        torch.testing.assert_close(found, whole.mtp[0][:, new], atol=1e-5, rtol=0)


def test_documents_are_apart_and_every_parameter_learns() -> None:
    """Documents use tokens of their own, so each row of the embedding belongs to one document: no other has a gradient."""
    model = backbone(shape(mtp_depth=0))
    batch = pack([[[1, 2, 3, 4, 5], [11, 12, 13], [21, 22]]], length=14)
    model.hidden(batch).hidden[batch.document_ids == 2].square().sum().backward()
    influence = model.embedding.weight.grad.abs().amax(-1)
    assert influence[11:14].min() > 0.0 and influence.sum() == influence[11:14].sum()
    model = backbone(shape()).train()
    batch = pack([random_documents([30, 20], 61, seed=1), random_documents([50], 61, seed=2)], length=53)
    output = model.hidden(batch)
    loss = output.balance_loss
    for depth, hidden in enumerate((output.hidden, *output.mtp)):
        targets, mask = targets_ahead(batch.token_ids, batch.document_ids, depth + 1)
        loss = loss - model.token_logprobs(hidden[mask], targets[mask])[0].mean()
    loss.backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or p.grad.abs().max() == 0] == []


# ------------------------------------------------------------------------------------------------------- what it costs


def test_parameters_and_cache_by_hand() -> None:
    """V2 Table 1: 2 n_g d_h l elements per token; queries 32 x 48, keys and values 32 x 48, out 48 x 32: 4,608 weights."""
    config = shape(n_kv_heads=2, head_dim=12)
    counts = count_parameters(meta_backbone(config))
    assert sum(p.numel() for p in meta_backbone(config).blocks[0].attention.parameters()) == 4608
    # Dense 3 x 32 x 40, twice (2 + 1) experts of 3 x 32 x 16 and a router of 32 x 8, the head of 61 x 32
    assert counts.activated == 3 * 4608 + 3840 + 2 * (3 * 1536 + 256) + 1952
    assert own_elements(config) == 2 * 2 * 12 * 3 == 144
    assert DeepSeekBackbone(config, PlainPrecision("bf16")).new_cache(3, 5).bytes == 3 * 5 * 144 * 2
    assert own_elements(shape(1)) == 72 and own_elements(shape(4)) == 288  # MQA and MHA


@pytest.mark.parametrize("compute", ["fp32", "bf16"])
@pytest.mark.parametrize("n_kv_heads", [1, 2, 4])
@pytest.mark.parametrize("tokens", [128, 512])
def test_activations_are_those_that_a_real_forward_saves(compute: Any, n_kv_heads: int, tokens: int) -> None:
    config = shape(n_kv_heads, 16, d_model=64, d_ff_dense=128, d_ff_expert=32, mtp_depth=0, max_positions=tokens)
    model = DeepSeekBackbone(config, PlainPrecision(compute)).train()
    batch = pack([random_documents([tokens], 61, seed=row) for row in range(4)])
    number = 2 if compute == "bf16" else 4
    assert is_attention_fused(config, "cpu") and is_attention_fused(config, "cuda")
    expected = activation_bytes(config, MicroBatch(4, tokens, 0, 0), number) + converted_weight_bytes(
        model, number, False
    )
    expected -= model.head.weight.numel() * (number if number == 2 else 0)  # no logits here
    measured = saved_bytes(lambda: model.hidden(batch), [*model.parameters(), *model.buffers()])
    assert expected == pytest.approx(measured, rel=0.03)


@pytest.mark.parametrize(
    ("rows", "tokens", "compute"), [(16, 64, "fp32"), (4, 256, "fp32"), (16, 64, "bf16"), (2, 600, "fp32")]
)
def test_reading_prompts_is_within_a_quarter(rows: int, tokens: int, compute: Any) -> None:
    config = shape(2, 16, d_model=64, d_ff_dense=128, d_ff_expert=32, mtp_depth=0, max_positions=600)
    model = DeepSeekBackbone(config, PlainPrecision(compute)).eval()
    ids, is_token = torch.zeros(rows, tokens, dtype=torch.long), torch.ones(rows, tokens, dtype=torch.bool)
    with torch.no_grad(), LiveTensors([*model.parameters(), *model.buffers()]) as live:
        cache = model.new_cache(rows, tokens)
        model.step(ids, is_token, cache)
    expected = cache.bytes + prefill_bytes(config, rows, tokens, 2 if compute == "bf16" else 4)
    assert expected == pytest.approx(live.peak, rel=0.25)


def test_flops_are_those_that_torch_counts() -> None:
    """Unfused, a token looks at all T = 32 of its row; drawn tokens, at the prompt and half of the completion."""
    config = shape(n_dense_layers=3, mtp_depth=1)
    model, counts = DeepSeekBackbone(config).eval(), count_parameters(meta_backbone(config))
    batch = pack([random_documents([32], 61, seed=row) for row in range(2)])
    plain = sdpa_kernel(SDPBackend.MATH)
    with torch.no_grad(), plain, FlopCounterMode(display=False) as counter:
        output = model.hidden(batch)
        for hidden in (output.hidden, *output.mtp):
            model.unembed(hidden)
    assert forward_flops(config, counts, 64, 64, context=32, mtp_depth=1) == counter.get_total_flops()
    read = sampling_flops(config, counts, 2, 3, prompt_tokens=6, new_tokens=0)
    both = sampling_flops(config, counts, 2, 3, prompt_tokens=6, new_tokens=4)
    # 12 tokens read, 24 drawn; 3 layers of 4 heads, 12 + 12 products per cached token; 3 and 6 + 4 / 2 of them are there
    assert read == 2 * 12 * (counts.activated - counts.head + 3 * 4 * 24 * 3)
    assert both - read == 2 * 24 * (counts.activated + 3 * 4 * 24 * 8)


# ---------------------------------------------------------------------------------------------------- how it is set up


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_kv_heads": 3}, r"model\.attention_kind\.n_kv_heads=3 is not allowed: it must divide model\.n_heads=4"),
        ({"n_kv_heads": 0}, r"model\.attention_kind\.n_kv_heads=0 is not allowed: .* at least 1"),
        ({"head_dim": 7}, r"model\.attention_kind\.head_dim=7 is not allowed: it must be even"),
        ({"head_dim": 8.0}, r"model\.attention_kind\.head_dim=8\.0 is not allowed: .* whole number"),
        ({"kv_lora_rank": 16}, r"model\.kv_lora_rank=16 is not allowed: no layer has MLA where .* is gqa"),
        ({"q_lora_rank": None}, r"model\.q_lora_rank=None is not allowed: no layer has MLA"),
    ],
)
def test_bad_values_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        shape(**changes)


def test_export_says_why_not() -> None:
    with pytest.raises(InvalidInput, match=r"model\.attention_kind='gqa' is not allowed: .* MLA only"):
        config_to_hf(shape())


@pytest.mark.parametrize(
    ("argument", "error"),
    [
        ("model.attention_kind.n_kv_heads=3", "model.attention_kind.n_kv_heads=3 is not allowed: it must divide"),
        ("model.attention_kind.head_dim=x", "model.attention_kind.head_dim='x' is not allowed: it must be a whole"),
        ("+model.kv_lora_rank=8", "model.kv_lora_rank=8 is not allowed: no layer has MLA"),
    ],
)
def test_the_command_line_refuses_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], argument: str, error: str
) -> None:
    assert error in train(["stage=pretrain", "model=tiny_gqa", argument, f"paths.root={tmp_path}"], capsys).error


@pytest.mark.slow
def test_it_trains_samples_and_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The dry run's cache: 4 layers x 2 x 2 x 32 elements per token in FP32, 2,048 bytes; with MLA it would be 896."""
    small = ["task.tokenizer.vocab_size=300", "task.tokenizer.training_documents=50", "logger=none"]
    arguments = ["stage=grpo", "model=tiny_gqa", "debug=fast", *small, f"paths.root={tmp_path}"]
    counted = train([*arguments, "dry_run=true"], capsys)
    assert counted.code == 0, counted.err
    found = re.search(r"key-value cache, sampling +(\d+) kB +(\d+) rows x (\d+) tokens", counted.out)
    assert found is not None, counted.out
    size, rows, tokens = map(int, found.groups())
    assert size == round(rows * tokens * 2048 / 1000) and rows * tokens > 100
    assert train(arguments, capsys).code == 0
    assert {folder(tmp_path, stage).is_dir() for stage in ("pretrain", "grpo")} == {True}
