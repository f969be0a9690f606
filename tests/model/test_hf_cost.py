"""What a rehearsal without values counts, against the same calls with values."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from r1_lightning.model import hf_cost
from r1_lightning.model.hf_cost import Kept
from r1_lightning.model.hf_model import HFBackbone, HFModelConfig
from r1_lightning.model.lora import LoraSettings
from r1_lightning.model.precision import PlainPrecision
from r1_lightning.types.tensors import TokenBatch
from tests.support.hf_folders import DENSE
from tests.support.memory import LiveTensors, saved_bytes

ROWS, TOKENS = 3, 64


def both(compute: Any = "fp32", lora: LoraSettings | None = None, **changes: Any) -> tuple[HFBackbone, HFBackbone]:
    """The same model with values, and on the meta device."""
    config = HFModelConfig({"model_type": "qwen2", **DENSE, "tie_word_embeddings": True, **changes}, lora)
    with torch.device("meta"):
        empty = HFBackbone(config, PlainPrecision(compute))
    return HFBackbone(config, PlainPrecision(compute)), empty


def batch(tokens: int = TOKENS) -> TokenBatch:
    return TokenBatch.of_whole_rows(torch.zeros(ROWS, tokens, dtype=torch.long))


@pytest.mark.parametrize("compute", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", ["qwen2", "llama"])
@pytest.mark.parametrize("tokens", [64, 300])  # with a mask, and a kernel per document
def test_what_a_forward_keeps(compute: str, kind: str, tokens: int) -> None:
    real, empty = both(compute, model_type=kind, max_position_embeddings=512)
    saved = saved_bytes(lambda: real.hidden(batch(tokens)), [*real.parameters(), *real.buffers()])
    kept = hf_cost.kept_bytes(empty, ROWS, tokens)
    assert kept.total == pytest.approx(saved, rel=0.01)
    assert 0.9 * kept.total < kept.blocks < kept.total and kept.block == pytest.approx(kept.blocks / 2, rel=0.25)
    assert kept.block_inputs == 2 * 4 * ROWS * tokens * 32  # two layers, FP32, width 32


def test_adapters_keep_less() -> None:
    pytest.importorskip("peft")
    real, empty = both(lora=LoraSettings(2, 8))
    saved = saved_bytes(lambda: real.hidden(batch()), [*real.parameters(), *real.buffers()])
    assert hf_cost.kept_bytes(empty, ROWS, TOKENS).total == pytest.approx(saved, rel=0.01)


@pytest.mark.parametrize("compute", ["fp32", "bf16"])
def test_what_is_alive_without_gradients(compute: str) -> None:
    """A forward, reading prompts, and a decoding step."""
    real, empty = both(compute)
    before = [*real.parameters(), *real.buffers()]
    with torch.no_grad(), LiveTensors(before) as live:
        real.hidden(batch())
    assert hf_cost.passing_bytes(empty, ROWS, TOKENS) == pytest.approx(live.peak, rel=0.05)
    with torch.no_grad(), LiveTensors(before) as live:
        cache = real.new_cache(ROWS, 61)
        real.step(batch(60).token_ids, torch.ones(ROWS, 60, dtype=torch.bool), cache)
        reading, live.peak = live.peak, 0
        real.step(batch(1).token_ids, torch.ones(ROWS, 1, dtype=torch.bool), cache)
    assert hf_cost.prefill_bytes(empty, ROWS, 60) == pytest.approx(reading, rel=0.1)
    assert hf_cost.cache_bytes(empty, ROWS, 61) == cache.bytes
    assert hf_cost.decoding_bytes(empty, ROWS, 61) == pytest.approx(live.peak, rel=0.15)


@torch.no_grad()
def test_reading_long_prompts_makes_no_mask() -> None:
    """One of 300 x 300 numbers and the boolean before it would be 450 kB a row, three times all else."""
    real, empty = both(max_position_embeddings=512)
    with LiveTensors([*real.parameters(), *real.buffers()]) as live:
        real.step(batch(300).token_ids, torch.ones(ROWS, 300, dtype=torch.bool), real.new_cache(ROWS, 300))
    assert hf_cost.prefill_bytes(empty, ROWS, 300) == pytest.approx(live.peak, rel=0.1)


def test_on_a_gpu_no_mask_and_no_repeated_heads() -> None:
    """Per token and layer queries 32, keys and values 16 each, output 32, as BF16, and 4 sums; the mask would be 64 per token."""
    _, empty = both("bf16")
    fused, dense = (hf_cost.kept_bytes(empty, ROWS, TOKENS, kind).total for kind in ("cuda", "cpu"))
    assert 0 < dense - fused <= ROWS * TOKENS * (2 * TOKENS + 2 * 2 * 2 * (16 + 16))


def test_a_rehearsal_recomputes_nothing_and_leaves_the_model_as_it_was() -> None:
    """With layers computed again `transformers` would keep no cache, and a forward would keep no activations to count."""
    plain, set_up = both()[1], both()[1]
    set_up.recompute_blocks()
    for count in (hf_cost.kept_bytes, hf_cost.passing_bytes, hf_cost.decoding_bytes, hf_cost.prefill_bytes):
        assert count(set_up, ROWS, TOKENS) == count(plain, ROWS, TOKENS)
    assert set_up.model.is_gradient_checkpointing and all(part.training for part in set_up.modules())


def test_recomputed_blocks_keep_their_inputs_and_one_block() -> None:
    assert Kept(total=110, block=30, blocks=100, block_inputs=8).recomputed == 110 - 100 + 30 + 8


def test_weights_by_hand() -> None:
    """Two layers: q 32 x 32, k and v 32 x 16, o 32 x 32, three of 32 x 48; 432 x 32 in the tied embedding."""
    _, empty = both("bf16")
    counts = hf_cost.count_parameters(empty)
    body = 2 * (32 * 32 + 2 * 32 * 16 + 32 * 32 + 3 * 32 * 48)
    assert (counts.embeddings, counts.head, counts.activated) == (432 * 32, 432 * 32, body + 432 * 32)
    assert counts.norms == 2 * (2 * 32 + 32 + 2 * 16) + 32  # with the biases of q, k and v
    assert counts.total == counts.activated + counts.norms
    assert hf_cost.converted_weight_bytes(empty) == 2 * 432 * 32  # the head; the rehearsals count the others
    assert hf_cost.attention_products(empty) == 2 * 2 * 32
    assert hf_cost.converted_weight_bytes(both("fp32")[1]) == 0
