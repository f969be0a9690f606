"""Costs counted beforehand against what real models, real batches and torch's own counters say."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from r1_lightning.functional.policy_loss import TokenLevelGRPO
from r1_lightning.model.backbone import DeepSeekBackbone
from r1_lightning.model.config import ModelConfig
from r1_lightning.model.cost import (
    MicroBatch,
    activation_bytes,
    converted_weight_bytes,
    count_parameters,
    forward_flops,
    inference_bytes,
    is_attention_fused,
    logit_bytes,
    meta_backbone,
    parameter_bytes,
    prefill_bytes,
    sampling_flops,
    tensor_bytes,
)
from r1_lightning.model.lightning_attention import BLOCK_TOKENS
from r1_lightning.model.precision import PlainPrecision
from r1_lightning.stages.base import AdamWConfig
from r1_lightning.stages.grpo import GRPOModule
from r1_lightning.stages.pretrain import PretrainModule
from r1_lightning.types.tensors import GRPOBatch, TokenBatch
from tests.model.test_config import V3
from tests.model.tiny import tiny
from tests.support.memory import LiveTensors, saved_bytes

SHAPE = {
    "d_model": 16, "n_layers": 3, "n_dense_layers": 1, "n_heads": 2, "q_lora_rank": 8, "kv_lora_rank": 8,
    "qk_nope_head_dim": 4, "qk_rope_head_dim": 4, "v_head_dim": 4, "d_ff_dense": 24, "d_ff_expert": 8,
    "n_routed_experts": 4, "n_shared_experts": 1, "n_activated_experts": 2,
}  # fmt: skip


def small(**changes: Any) -> ModelConfig:
    """The proportions of configs/model/tiny.yaml, half as wide."""
    shape: dict[str, Any] = {
        "vocab_size": 256, "d_model": 64, "n_layers": 3, "n_dense_layers": 1, "n_heads": 4, "q_lora_rank": 32,
        "kv_lora_rank": 24, "qk_nope_head_dim": 12, "qk_rope_head_dim": 4, "v_head_dim": 16, "d_ff_dense": 128,
        "d_ff_expert": 32, "n_routed_experts": 8, "n_shared_experts": 1, "n_activated_experts": 2,
    }  # fmt: skip
    return ModelConfig(**{**shape, **changes})


# ----------------------------------------------------------------------------------------------------------- parameters


@pytest.mark.parametrize("q_lora_rank", [8, None])
def test_activated_parameters_by_hand(q_lora_rank: int | None) -> None:
    """Every matrix of the main model, less the embedding and the experts that a token did not choose.

    Attention: 16 x 8 + 8 x 16 (or 16 x 16) for queries, 16 x 12 + 8 x 16 for keys and values, 8 x 16 out: 704 either way.
    Dense: 3 x 16 x 24 = 1,152. Mixture: (2 + 1) experts of 3 x 16 x 8, router 16 x 4: 1,216. Head: 50 x 16 = 800.
    """
    counts = count_parameters(meta_backbone(ModelConfig(vocab_size=50, **{**SHAPE, "q_lora_rank": q_lora_rank})))
    assert counts.activated == 3 * 704 + 1152 + 2 * 1216 + 800
    assert counts.head == 800 and counts.embeddings == 1600
    # An MTP module: 32 x 16 for the pair of eq 21, attention, and a mixture (it is dense only where all layers are).
    assert counts.mtp_activated == 512 + 704 + 1216


def test_activated_parameters_of_a_hybrid_by_hand() -> None:
    """A lightning layer: 16 x (3 + 1) x 8 for q, k, v and the gate, 8 x 16 out: 640 in place of MLA's 704; MTP keeps MLA."""
    config = ModelConfig(vocab_size=50, **SHAPE, attention_kind="lightning", softmax_attention_every=3)
    counts = count_parameters(meta_backbone(config))
    assert counts.activated == 2 * 640 + 704 + 1152 + 2 * 1216 + 800
    assert counts.mtp_activated == 512 + 704 + 1216


def test_counts_are_those_of_a_real_model() -> None:
    for tied in (False, True):
        model = DeepSeekBackbone(tiny(tie_embeddings=tied, mtp_depth=2))
        counts = count_parameters(meta_backbone(model.config))
        assert counts == count_parameters(model)
        assert counts.total == sum(p.numel() for p in model.parameters())
        assert counts.mtp == sum(p.numel() for name, p in model.named_parameters() if name.startswith("mtp"))
        assert counts.embeddings == (1 if tied else 2) * 61 * 32
        assert tensor_bytes(meta_backbone(model.config)) == sum(
            t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers())
        )


def test_v3_has_the_published_sizes() -> None:
    """671 B and 37 B activated (V3 section 4.2): 36.6 B without the embedding, a look-up of 0.9 B; MTP 11.6 B of its own."""
    counts = count_parameters(meta_backbone(V3))
    assert (counts.total - counts.mtp) / 1e9 == pytest.approx(671, abs=0.5)
    assert counts.activated / 1e9 == pytest.approx(36.63, abs=0.01)
    assert (counts.activated + counts.embeddings - counts.head) / 1e9 == pytest.approx(37.55, abs=0.01)
    assert counts.mtp / 1e9 == pytest.approx(11.61, abs=0.01)


# --------------------------------------------------------------------------------------------------------------- memory


def token_rows(config: ModelConfig, rows: int, length: int) -> TokenBatch:
    """Rows of one document each."""
    ids = torch.randint(config.vocab_size, (rows, length), generator=torch.Generator().manual_seed(0))
    positions = torch.arange(length).expand(rows, length).contiguous()
    return TokenBatch(ids, positions, torch.ones_like(ids))


def completions(config: ModelConfig, rows: int, length: int, prompt: int) -> GRPOBatch:
    """A completion behind a prompt in every row."""
    mask = torch.zeros(rows, length, dtype=torch.bool)
    mask[:, prompt:] = True
    zeros, sequences = torch.zeros(rows, length), torch.arange(rows)[:, None].expand(rows, length).contiguous()
    tokens, each = token_rows(config, rows, length), torch.full((rows,), float(length - prompt))
    return GRPOBatch(tokens, mask, zeros, zeros, sequences, mask.float(), each, rows, int(mask.sum()), 0)


LIGHTNING = {"n_layers": 4, "attention_kind": "lightning", "softmax_attention_every": 4}
# Shape, compute type, weight of the MTP loss, rows, tokens per row.
SHAPES: dict[str, tuple[dict[str, Any], str, float, int, int]] = {
    "as tiny": ({}, "fp32", 0.0, 8, 128),
    "bf16": ({}, "bf16", 0.0, 8, 128),
    "with MTP": ({"mtp_depth": 2}, "fp32", 0.1, 8, 96),
    "with MTP in bf16": ({}, "bf16", 0.1, 8, 96),
    "dense, plain queries": ({"n_dense_layers": 3, "q_lora_rank": None}, "fp32", 0.1, 8, 96),
    "narrow values: attention not fused": ({"v_head_dim": 8}, "fp32", 0.0, 4, 256),
    "not fused, bf16": ({"v_head_dim": 8}, "bf16", 0.0, 4, 256),
    "many experts": ({"n_routed_experts": 32, "n_activated_experts": 6, "n_shared_experts": 2}, "fp32", 0.0, 4, 128),
    "long rows": ({}, "fp32", 0.0, 1, 512),
    "long rows, narrow values": ({"v_head_dim": 8}, "fp32", 0.0, 1, 512),
    "long rows, wide values in bf16": ({"v_head_dim": 32}, "bf16", 0.0, 1, 512),
    "a wide vocabulary": ({"vocab_size": 20_000}, "fp32", 0.0, 2, 128),
    "lightning attention": (LIGHTNING, "fp32", 0.0, 4, 192),
    "lightning attention, blocks of 41": (LIGHTNING, "fp32", 0.0, 4, 81),
    "lightning attention in bf16": (LIGHTNING, "bf16", 0.1, 4, 128),
    "wide heads": ({**LIGHTNING, "v_head_dim": 64, "n_heads": 2}, "fp32", 0.0, 4, 128),
    "wider": ({"d_model": 256, "n_layers": 2, "n_heads": 8}, "fp32", 0.0, 2, 128),
}


def stage(kind: str, model: DeepSeekBackbone, mtp_loss_weight: float) -> Any:
    """A stage that can be asked for a `training_step` without a Trainer."""
    optim = AdamWConfig(lr=0.001)
    module: Any
    if kind == "grpo":
        module = GRPOModule(model, optim, TokenLevelGRPO(), 2, mtp_loss_weight=mtp_loss_weight)
    else:
        module = PretrainModule(model, optim, 2, mtp_loss_weight=mtp_loss_weight)
    module._trainer = SimpleNamespace(accumulate_grad_batches=1)
    return module.train()


def case(kind: str, name: str) -> tuple[Any, Any, MicroBatch, int]:
    """A real stage with a real batch, the description of that batch, and the bytes of the compute type."""
    changes, compute, mtp_loss_weight, rows, length = SHAPES[name]
    model = DeepSeekBackbone(small(**changes), PlainPrecision(compute))  # type: ignore[arg-type]
    config, depth = model.config, model.config.mtp_depth if mtp_loss_weight else 0
    number = 2 if compute == "bf16" else 4
    if kind == "grpo":
        batch: Any = completions(config, rows, length, length // 4)
        described = MicroBatch(rows, length, batch.n_tokens, depth)
    else:
        batch = token_rows(config, rows, length)
        described = MicroBatch(rows, length, rows * length, depth)
    return stage(kind, model, mtp_loss_weight), batch, described, number


def tensors_of(module: Any) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("kind", ["grpo", "pretrain"])
def test_activations_are_those_that_a_real_step_saves(kind: str, name: str) -> None:
    """The contract is 25 %; the formula lists the tensors one by one, and is held to 3 %."""
    module, batch, described, number = case(kind, name)
    config = module.backbone.config
    expected = activation_bytes(config, described, number, is_attention_fused(config, "cpu"))
    expected += converted_weight_bytes(module.backbone, number, described.mtp_depth > 0)
    measured = saved_bytes(lambda: module.training_step(batch, 0), tensors_of(module))
    assert expected == pytest.approx(measured, rel=0.03)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("kind", ["grpo", "pretrain"])
def test_the_most_memory_of_an_update_is_within_a_quarter(kind: str, name: str) -> None:
    """Activations, logits, gradients and the reference's forward, against all tensors alive in real steps.

    Gradients are set free after the forward, as Lightning does it.
    """
    module, batch, described, number = case(kind, name)
    backbone, config = module.backbone, module.backbone.config
    is_fused = is_attention_fused(config, "cpu")
    expected = activation_bytes(config, described, number, is_fused) + logit_bytes(config.vocab_size, described, "cpu")
    expected += converted_weight_bytes(backbone, number, described.mtp_depth > 0) + parameter_bytes(backbone)
    if not described.mtp_depth:
        expected -= parameter_bytes(backbone.mtp_modules)
    if kind == "grpo":
        expected += inference_bytes(config, described, number, is_fused)
    with LiveTensors(tensors_of(module)) as live:
        for _ in range(2):
            loss = module.training_step(batch, 0)
            module.zero_grad()
            loss.backward()
            del loss
    assert expected == pytest.approx(live.peak, rel=0.25)


@pytest.mark.parametrize("changes", [{}, LIGHTNING])
@pytest.mark.parametrize(
    ("rows", "tokens", "compute"),
    [(16, 96, "fp32"), (4, 256, "fp32"), (16, 96, "bf16"), (4, 600, "fp32"), (2, 600, "bf16")],
)
def test_reading_prompts_is_within_a_quarter(rows: int, tokens: int, compute: str, changes: dict[str, Any]) -> None:
    """The cache and what reading fills it with, against all tensors alive."""
    model = DeepSeekBackbone(small(mtp_depth=0, **changes), PlainPrecision(compute)).eval()  # type: ignore[arg-type]
    ids, is_token = torch.zeros(rows, tokens, dtype=torch.long), torch.ones(rows, tokens, dtype=torch.bool)
    with torch.no_grad(), LiveTensors(tensors_of(model)) as live:
        cache = model.new_cache(rows, tokens)
        model.step(ids, is_token, cache)
    number = 2 if compute == "bf16" else 4
    expected = cache.bytes + prefill_bytes(model.config, rows, tokens, number)
    assert expected == pytest.approx(live.peak, rel=0.25)


def test_tiles_of_logits_by_hand() -> None:
    """100,000 tokens of V3's vocabulary: three tiles of 1,024 x 16,384, 201 MB, on a CPU 13 MB; whole logits take 51.7 GB."""
    batch = MicroBatch(100, 1000, 100_000, 0)
    assert logit_bytes(129_280, batch, "cuda") == 3 * 4 * 1024 * 16_384
    assert logit_bytes(129_280, batch, "cpu") == 3 * 4 * 1024 * 1024
    # 4 tokens of a vocabulary of 500 are a small tile; an MTP loss takes all 10 positions
    assert logit_bytes(500, MicroBatch(1, 10, 4, 0), "cpu") == 3 * 4 * 4 * 500
    assert logit_bytes(500, MicroBatch(1, 10, 4, 1), "cpu") == 3 * 4 * 10 * 500


def test_attention_is_fused_everywhere_but_on_a_cpu_with_two_widths() -> None:
    assert is_attention_fused(V3, "cuda") and not is_attention_fused(V3, "cpu")  # 192 and 128 wide
    assert is_attention_fused(small(), "cpu")


# ---------------------------------------------------------------------------------------------------------------- FLOPs


def test_forward_flops_are_those_that_torch_counts() -> None:
    """Dense layers with unfused attention are all plain products; there a token looks at all T of its row, mask or not."""
    config = small(n_dense_layers=3, v_head_dim=8, mtp_depth=1)
    model, batch = DeepSeekBackbone(config).eval(), token_rows(config, 2, 32)
    counts = count_parameters(model)
    for with_mtp in (False, True):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            output = model.hidden(batch, with_mtp)
            for hidden in (output.hidden, *output.mtp):
                model.unembed(hidden[:, 5:])
        ours = forward_flops(config, counts, tokens=64, targets=2 * 27, context=32, mtp_depth=int(with_mtp))
        assert ours == counter.get_total_flops()


def test_sampling_flops_are_those_that_torch_counts() -> None:
    """2 prompts of 6 tokens, read once, and 3 completions of 4 tokens each, all by absorbed products on the cache."""
    config = small(n_dense_layers=3, mtp_depth=0)
    model = DeepSeekBackbone(config).eval()
    plain = sdpa_kernel(SDPBackend.MATH)  # the counter does not know the CPU's fused kernel
    with torch.no_grad(), plain, FlopCounterMode(display=False) as counter:
        cache = model.new_cache(2, 6)
        model.step(torch.zeros(2, 6, dtype=torch.long), torch.ones(2, 6, dtype=torch.bool), cache)
    counts = count_parameters(model)
    read = sampling_flops(config, counts, 2, 3, prompt_tokens=6, new_tokens=0)
    # Per head and cached token the kernel takes 2 x (24 + 4) products, the rotary part of the sum among them, and looks at all 6
    # tokens; the formula has 2 x 24 + 4 products and the 3 tokens that lie before on average. 12 tokens, 3 layers, 4 heads.
    assert read == counter.get_total_flops() - 2 * 12 * 3 * 4 * (56 * 6 - 52 * 3)
    both = sampling_flops(config, counts, 2, 3, prompt_tokens=6, new_tokens=4)
    # 24 tokens, each with all weights and a look at 6 + 4 / 2 cached tokens
    assert both - read == 2 * 24 * (counts.activated + 3 * 4 * 52 * 8)


def test_forward_flops_of_a_hybrid_are_those_that_torch_counts() -> None:
    """Rows of two blocks, in which what a token may not see is made and then weighed with 0.

    Between blocks 3 places sum over 3, per row (2), lightning layer (3), head (4) and number of a state (8 x 8).
    """
    config = small(n_dense_layers=4, v_head_dim=8, mtp_depth=0, **LIGHTNING)
    model, batch = DeepSeekBackbone(config).eval(), token_rows(config, 2, 2 * BLOCK_TOKENS)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.unembed(model.hidden(batch).hidden)
    tokens = 4 * BLOCK_TOKENS
    ours = forward_flops(config, count_parameters(model), tokens, targets=tokens, context=2 * BLOCK_TOKENS)
    assert ours + 2 * (3 * 3) * 2 * 3 * 4 * 8 * 8 == counter.get_total_flops()


def test_sampling_flops_of_lightning_attention() -> None:
    """3 lightning layers of 4 heads, 16 wide: 4 x 2 x 16 x (64 + 16) products per token read, 4 x 2 x 16 x 16 per token drawn."""
    config = small(n_dense_layers=4, mtp_depth=0, **LIGHTNING)
    counts = count_parameters(meta_backbone(config))
    others = 4 * (2 * 24 + 4)  # of the one MLA layer, per cached token
    read = sampling_flops(config, counts, 2, 3, prompt_tokens=6, new_tokens=0)
    assert read == 2 * 12 * (counts.activated - counts.head + 3 * 4 * 2 * 16 * 80 + others * 3)
    both = sampling_flops(config, counts, 2, 3, prompt_tokens=6, new_tokens=4)
    assert both - read == 2 * 24 * (counts.activated + 3 * 4 * 2 * 16 * 16 + others * 8)
