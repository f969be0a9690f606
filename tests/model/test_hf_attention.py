"""Packed rows of `transformers` models: long rows without a T x T mask equal the dense mask, family by family."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from r1_lightning.functional.masking import document_attention_mask
from r1_lightning.model import hf_attention
from r1_lightning.model.continued_rows import folded, unfolded
from r1_lightning.model.hf_attention import packed_mask
from r1_lightning.model.hf_model import HFBackbone, HFModelConfig
from r1_lightning.model.masked_attention import DocumentRows
from r1_lightning.model.precision import PlainPrecision
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.tensors import TokenBatch
from tests.model.tiny import left_pad, normal, pack, random_documents
from tests.support.hf_folders import DENSE, VOCABULARY
from tests.support.memory import LiveTensors

LONG = {"max_position_embeddings": 512}
MLA = {
    "q_lora_rank": 12,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 8,
    "head_dim": 4,
}
EXPERTS = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "n_group": 1, "topk_group": 1}
FAMILIES: dict[str, dict[str, Any]] = {
    "qwen2": {},
    "llama": {},
    "qwen3": {"head_dim": 8},
    "mistral": {"sliding_window": None},
    "gemma": {"head_dim": 8},
    "phi3": {"pad_token_id": 0, "sliding_window": None},
    "granite": {"logits_scaling": 1.0},
    "olmo2": {},
    "smollm3": {"pad_token_id": 0},
    "glm": {"head_dim": 8, "pad_token_id": 0},
    "deepseek_v3": {**MLA, **EXPERTS, "num_key_value_heads": 4, "first_k_dense_replace": 1},
    "gpt2": {"n_positions": 512, "n_embd": 32, "n_layer": 2, "n_head": 4},
}


def model(kind: str) -> HFBackbone:
    return HFBackbone(HFModelConfig({"model_type": kind, **DENSE, **LONG, **FAMILIES[kind]})).eval()


def results(backbone: HFBackbone, batch: Any) -> list[Tensor]:
    """Hidden states at tokens, and the gradients of all weights."""
    backbone.zero_grad()
    hidden = backbone.hidden(batch).hidden * batch.is_token.unsqueeze(-1)
    (hidden * normal(*hidden.shape, seed=3)).sum().backward()
    return [hidden.detach(), *(p.grad.clone() for p in backbone.parameters() if p.grad is not None)]


@pytest.mark.parametrize("kind", FAMILIES)
def test_long_rows_equal_the_dense_mask_forward_and_gradient(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = model(kind)
    batch = pack(
        [random_documents([150, 1, 109], VOCABULARY, seed=1), random_documents([230], VOCABULARY, seed=2)], 270
    )
    given: list[Tensor] = []

    def watched(ids: Tensor, takes_documents: bool, prefixes: Tensor | None) -> Tensor:
        given.append(packed_mask(ids, takes_documents, prefixes))
        return given[-1]

    monkeypatch.setattr("r1_lightning.model.hf_model.packed_mask", watched)
    found = results(backbone, batch)
    assert backbone.takes_documents and given[0].shape == (2, 1, 1, 270)
    backbone.takes_documents = False
    expected = results(backbone, batch)
    assert given[1].shape == (2, 1, 270, 270) and len(found) > 10
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=2e-4 * max(1.0, float(other.abs().max())), rtol=0)


@pytest.mark.parametrize("kind", FAMILIES)
@torch.no_grad()
def test_long_prompts_are_read_as_with_the_dense_mask(kind: str) -> None:
    """And a step onto what was cached of them."""
    backbone, steps = model(kind), []
    ids, is_token = left_pad(random_documents([270, 1, 130], VOCABULARY, seed=1))
    for takes_documents in (True, False):
        assert backbone.takes_documents
        backbone.takes_documents = takes_documents
        cache = backbone.new_cache(3, 271)
        with LiveTensors() as live:
            read = backbone.step(ids, is_token, cache).hidden * is_token.unsqueeze(-1)
        next_token = torch.full((3, 1), 7)
        drawn = backbone.step(next_token, torch.ones_like(next_token, dtype=torch.bool), cache).hidden
        steps.append((read, drawn, live.peak))
        backbone.takes_documents = True
    for found, expected in zip(*(step[:2] for step in steps), strict=True):
        torch.testing.assert_close(found, expected, atol=2e-4 * max(1.0, float(expected.abs().max())), rtol=0)
    assert steps[0][2] < steps[1][2] - 3 * 270 * 270  # at least the boolean mask is gone


def shared_prompt(length: int) -> TokenBatch:
    """A prefix with two documents that continue it, a document alone, and padding."""
    ids = torch.tensor([[1] * 9 + [2] * 5 + [3] * 6 + [4] * 4]).repeat_interleave(length // 30, 1)
    ids = torch.nn.functional.pad(ids, (0, length - ids.shape[1]))
    prefixes = ((ids == 2) | (ids == 3)).long()
    starts = torch.tensor([0, 0, 9, 14, 20])[ids] * (length // 30)
    firsts = torch.tensor([0, 0, 9, 9, 0])[ids] * (length // 30)
    positions = (torch.arange(length) - starts + firsts) * (ids > 0)
    return TokenBatch(torch.tensor(random_documents([length], VOCABULARY, seed=1)), positions, ids, prefixes)


@pytest.mark.parametrize("kind", ["qwen2", "llama", "gpt2"])
def test_rows_that_share_a_prompt_are_computed_in_bf16(kind: str) -> None:
    """Queries and keys come rotated in FP32 there, values in BF16. Gradients of small biases are off most, by 4 %."""
    backbone, found = model(kind), []
    for compute in ("bf16", "fp32"):
        backbone.precision = PlainPrecision(compute)
        found.append(results(backbone, shared_prompt(300)))
    for one, other in zip(*found, strict=True):
        assert (one - other).norm() < 0.06 * other.norm()


@pytest.mark.parametrize("length", [30, 300])
@pytest.mark.parametrize("kind", FAMILIES)
def test_rows_that_share_a_prompt_equal_the_plain_layout(kind: str, length: int) -> None:
    """A prefix with two documents that continue it, beside a document alone, for masks of short rows and kernels of long ones."""
    backbone, batch = model(kind), shared_prompt(length)
    ids, (plain, _, back) = batch.document_ids, unfolded(batch, None)
    assert backbone.takes_documents
    direction = normal(1, length, 32, seed=3) * (ids > 1)[..., None]  # the prefix only through what continues it
    found = []
    for hidden in (lambda: backbone.hidden(batch), lambda: folded(backbone.hidden(plain), back)):
        backbone.zero_grad()
        states = hidden().hidden
        (states * direction).sum().backward()
        gradients = [p.grad.clone() for p in backbone.parameters() if p.grad is not None]
        found.append([states.detach() * (ids > 0)[..., None], *gradients])
    for one, other in zip(*found, strict=True):
        # Granite's gradients reach 200; in FP32 both layouts are 4e-6 of their largest off what FP64 gives.
        torch.testing.assert_close(one, other, atol=1e-5 * max(10.0, float(other.abs().max())), rtol=1e-3)
    backbone.takes_documents = False  # attention of its own: the plain layout, by itself
    torch.testing.assert_close(backbone.hidden(batch).hidden * (ids > 0)[..., None], found[0][0], atol=1e-4, rtol=1e-3)


def test_a_bias_that_counts_places_in_the_row_is_refused_where_prompts_are_shared() -> None:
    ids, bias = torch.tensor([[1, 1, 2, 3]]), normal(1, 2, 4, 4, seed=1)
    mask = packed_mask(ids, True, torch.tensor([[0, 0, 1, 1]]))
    with pytest.raises(InvalidInput, match=r"rollout\.share_prompts_from"):
        hf_attention.attend(None, *(normal(1, 2, 4, 6, seed=i) for i in range(3)), mask, position_bias=bias)


def test_short_rows_keep_the_dense_mask() -> None:
    ids = torch.tensor([[1, 1, 2, 0]])
    assert torch.equal(packed_mask(ids, True), document_attention_mask(ids))


def test_ids_that_lost_their_rows_on_the_way_are_read_again() -> None:
    """A decoder may slice what it takes for a mask."""
    ids = torch.ones(1, 300, dtype=torch.long)
    ids[0, 120:] = 2
    mask = packed_mask(ids, True)
    assert isinstance(getattr(mask, hf_attention.ROWS), DocumentRows)
    q, k, v = (normal(1, heads, 300, 8, seed=heads) for heads in (4, 2, 2))
    whole, sliced = (hf_attention.attend(None, q, k, v, given)[0] for given in (mask, mask[:, :, :, :300]))
    assert whole.shape == (1, 300, 4, 8) and torch.equal(whole, sliced)
    k, v = k.repeat_interleave(2, 1), v.repeat_interleave(2, 1)
    expected, _ = hf_attention.attend(None, q, k, v, document_attention_mask(ids))
    torch.testing.assert_close(whole, expected, atol=1e-5, rtol=1e-5)


def test_a_bias_by_position_is_added_to_the_dense_mask() -> None:
    ids = torch.tensor([[1] * 4 + [2] * 3])
    q, k, v, bias = (normal(1, 2, 7, width, seed=width) for width in (6, 6, 6, 7))
    found, _ = hf_attention.attend(None, q, k, v, ids[:, None, None], position_bias=bias)
    weights = (q @ k.transpose(-1, -2) * 6**-0.5 + bias + document_attention_mask(ids)).softmax(-1)
    torch.testing.assert_close(found, (weights @ v).transpose(1, 2), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_padding_and_no_mask_at_all_are_those_of_transformers() -> None:
    """A caller of the model itself, as `generate` is, sees no other attention."""
    backbone = model("qwen2")
    ids = torch.tensor(random_documents((9, 9), VOCABULARY, seed=0))
    padding = torch.ones(2, 9, dtype=torch.long)
    padding[0, :4] = 0
    found = [backbone.model(ids).logits, backbone.model(ids, attention_mask=padding).logits[:, 4:]]
    backbone.model.set_attn_implementation("sdpa")
    expected = [backbone.model(ids).logits, backbone.model(ids, attention_mask=padding).logits[:, 4:]]
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert (expected[0][:, 4:] - expected[1]).abs()[0].max() > 1e-3


def test_a_long_row_makes_no_matrix_of_its_length() -> None:
    largest: list[int] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            largest.extend(
                part.numel() for part in (out if isinstance(out, tuple) else [out]) if isinstance(part, Tensor)
            )
            return out

    backbone, batch = model("qwen2"), pack([random_documents([490, 10], VOCABULARY, seed=1)])
    with Watch():
        backbone.hidden(batch).hidden.sum().backward()
    assert 500 < max(largest) < 500**2 / 4


def test_a_class_that_changes_the_mask_before_attention_keeps_the_dense_mask() -> None:
    """Doge hides what its own scores hide: it compares the mask with 0, which ids of documents never are."""
    backbone = HFBackbone(HFModelConfig({"model_type": "doge", **DENSE, **LONG})).eval()
    assert not backbone.takes_documents
    documents = random_documents([150, 1, 109], VOCABULARY, seed=1)
    with torch.no_grad():
        packed = backbone.hidden(pack([documents])).hidden[0].split([150, 1, 109])
        for found, document in zip(packed, documents, strict=True):
            alone = backbone.hidden(pack([[document]])).hidden[0]
            torch.testing.assert_close(found, alone, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["qwen2", "deepseek_v3"])
def test_a_model_without_memory_is_looked_at_too(kind: str) -> None:
    with torch.device("meta"):
        assert model(kind).takes_documents


def test_a_mask_that_changes_on_the_way_or_never_arrives_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = model("qwen2").decoder
    layer = type(decoder.layers[1])
    forward = layer.forward
    assert hf_attention.ids_arrive(decoder)
    for change in (lambda ids: ids + 1, lambda ids: ids[..., :4], lambda ids: ids.float(), lambda ids: None):

        def changed(self: Any, *arguments: Any, attention_mask: Tensor, change: Any = change, **keywords: Any) -> Any:
            is_second = self.self_attn.layer_idx == 1
            return forward(
                self, *arguments, attention_mask=change(attention_mask) if is_second else attention_mask, **keywords
            )

        monkeypatch.setattr(layer, "forward", changed)
        assert not hf_attention.ids_arrive(decoder)
    monkeypatch.setattr(layer, "forward", lambda self, hidden, **_: hidden)
    assert not hf_attention.ids_arrive(decoder)


def test_looking_leaves_no_trace_in_the_model() -> None:
    """A forward may keep what it computed; that of a look has no values."""
    decoder = model("glm").decoder
    decoder.layers[0].register_forward_hook(lambda layer, *_: setattr(layer, "seen", True))
    before = {name: tensor.clone() for name, tensor in [*decoder.named_parameters(), *decoder.named_buffers()]}
    assert hf_attention.ids_arrive(decoder)
    after = dict([*decoder.named_parameters(), *decoder.named_buffers()])
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert not hasattr(decoder.layers[0], "seen")


@pytest.mark.parametrize(("heads", "shared"), [(4, 2), (6, 1), (2, 2)])
def test_heads_of_a_group_read_their_keys_as_they_are(heads: int, shared: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU, one new position: what repeated keys and values give, without repeating them."""
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(3, heads, 1, 8, generator=generator)
    k, v = torch.randn(2, 3, shared, 7, 8, generator=generator).unbind(0)
    mask = torch.where(torch.rand(3, 1, 1, 7, generator=generator) < 0.3, torch.finfo(torch.float32).min, 0.0)
    module = SimpleNamespace(num_key_value_groups=heads // shared, is_causal=True)
    expected, _ = hf_attention.attend(module, q, k, v, mask, 0.3)
    monkeypatch.setattr(hf_attention, "groups_heads", lambda device: True)
    found, _ = hf_attention.attend(module, q, k, v, mask, 0.3)
    assert found.shape == expected.shape == (3, 1, heads, 8)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    assert hf_attention.is_grouped_step(q, k, {}) is (heads != shared)
    assert not hf_attention.is_grouped_step(q.expand(-1, -1, 2, -1), k, {})
    assert not hf_attention.is_grouped_step(q, k, {"position_bias": mask})
