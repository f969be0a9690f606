"""Dense models of `transformers` as a backbone: packed rows and cached steps are the model's own logits."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from r1_lightning.model import hf_model
from r1_lightning.model.hf_model import HFBackbone, HFModelConfig, hf_model_views, is_copy
from r1_lightning.model.precision import PlainPrecision
from r1_lightning.rollout.agreement import row_agreement
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.tensors import Backbone, Balanced, TokenBatch
from tests.model.tiny import left_pad, pack, random_documents
from tests.support.hf_folders import DENSE, VOCABULARY
from tests.support.memory import LiveTensors


def model(kind: str = "qwen2", precision: PlainPrecision | None = None, **changes: Any) -> HFBackbone:
    return HFBackbone(HFModelConfig({"model_type": kind, **DENSE, **changes}), precision).eval()


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
@torch.no_grad()
def test_packed_rows_are_each_document_alone(kind: str) -> None:
    backbone = model(kind)
    rows = [random_documents(lengths, VOCABULARY, seed) for seed, lengths in enumerate([(9, 1, 14), (20,)])]
    batch = pack(rows, length=26)
    found = backbone.unembed(backbone.hidden(batch).hidden)[batch.is_token]
    expected = torch.cat([backbone.model(torch.tensor([document])).logits[0] for row in rows for document in row])
    assert expected.std() > 0.5
    assert (found - expected).abs().max() <= 1e-5


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
@torch.no_grad()
def test_cached_steps_of_padded_prompts(kind: str) -> None:
    """Prompts of 9, 1 and 14 tokens, two copies of the first, the second dropped, then two steps more."""
    backbone, prompts = model(kind), random_documents((9, 1, 14), VOCABULARY, seed=3)
    cache = backbone.new_cache(3, 16)
    backbone.step(*left_pad(prompts), cache)
    kept, news = torch.tensor([0, 0, 2]), torch.tensor([[5, 6], [7, 8], [9, 10]])
    cache.select_rows(kept)
    logits = []
    for t in range(2):
        new = news[:, t : t + 1]
        logits.append(backbone.unembed(backbone.step(new, torch.ones_like(new, dtype=torch.bool), cache).hidden))
    found = torch.cat(logits, dim=1)
    for row, prompt in enumerate(kept.tolist()):
        whole = torch.tensor([prompts[prompt] + news[row].tolist()])
        assert (found[row] - backbone.model(whole).logits[0, -2:]).abs().max() <= 1e-5
    # keys and values of 2 layers x 3 rows x 2 heads x 16 columns x 8 numbers of 4 bytes
    assert cache.bytes == 2 * 2 * 3 * 2 * 16 * 8 * 4


@torch.no_grad()
def test_log_probs_are_those_of_the_logits() -> None:
    backbone = model()
    ids = torch.tensor(random_documents((12,), VOCABULARY, seed=0))
    logits = backbone(ids)
    assert (logits - backbone.model(ids).logits).abs().max() <= 1e-5
    hidden = backbone.hidden(pack([ids.tolist()])).hidden[0]
    logprobs, entropies = backbone.token_logprobs(hidden, ids[0].roll(-1), 0.7)
    table = (logits[0] / 0.7).log_softmax(-1)
    assert torch.allclose(logprobs, table.gather(1, ids[0].roll(-1)[:, None])[:, 0], atol=1e-5)
    assert torch.allclose(entropies, -(table.exp() * table).sum(-1), atol=1e-5)


def test_it_fits_the_protocols_and_has_no_experts() -> None:
    backbone = model()
    assert isinstance(backbone, Backbone) and isinstance(backbone, Balanced)
    output = backbone.hidden(pack([random_documents((5,), VOCABULARY, seed=0)]))
    assert output.routes.shape == (0, 1, 5, 0) and output.expert_load.shape == (0, 0) and output.mtp == ()
    assert backbone.expert_bias().numel() == 0
    with pytest.raises(InvalidInput, match="model=hf has no routes to replay"):
        backbone.hidden(pack([[[1, 2]]]), replayed_LBTK=torch.zeros(1))


def test_a_copy_is_a_model_of_its_own() -> None:
    backbone = model()
    twin = copy.deepcopy(backbone)
    with torch.no_grad():
        twin.head.weight.zero_()
    assert backbone.head.weight.any() and twin.decoder is twin.model.get_decoder() is not backbone.decoder


def test_weights_belong_to_the_seed() -> None:
    config = HFModelConfig({"model_type": "llama", **DENSE})
    one, same, other = (HFBackbone(config, seed=seed).head.weight for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_weights_that_are_not_drawn_take_those_that_are_loaded() -> None:
    """Whatever memory held is overwritten, the tied head included; no draw is taken from torch's own generator."""
    fields = HFModelConfig({"model_type": "qwen2", **DENSE, "tie_word_embeddings": True})
    drawn, state = HFBackbone(fields, seed=3), torch.get_rng_state()
    empty = HFBackbone(fields, is_drawn=False)
    assert torch.equal(torch.get_rng_state(), state)
    empty.load_state_dict(drawn.state_dict())
    empty.check_head()
    ids = torch.arange(12)[None]
    assert torch.equal(empty(ids), drawn(ids)) and empty.head.weight is empty.model.get_input_embeddings().weight


def test_bf16_is_near_fp32() -> None:
    plain, rough = model("llama"), model("llama", PlainPrecision("bf16"))
    rough.load_state_dict(plain.state_dict())
    ids = torch.tensor(random_documents((24,), VOCABULARY, seed=0))
    with torch.no_grad():
        difference = (plain(ids) - rough(ids)).abs().max() / plain(ids).std()
    assert 1e-4 < difference < 0.2


def test_a_tied_head_is_stored_once() -> None:
    tied, untied = model(tie_word_embeddings=True), model("llama")
    assert "lm_head.weight" not in hf_model_views(tied) and "lm_head.weight" in hf_model_views(untied)
    assert is_copy(tied, "lm_head.weight") and not is_copy(untied, "lm_head.weight")
    assert is_copy(untied, "model.layers.0.self_attn.rotary_emb.inv_freq")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (None, r"model=hf is not allowed without init_from=FOLDER"),
        ({"model_type": "t5"}, r"model_type='t5' is not allowed: transformers makes no causal language model of it"),
        ({"model_type": "nonesuch"}, r"model_type='nonesuch' is not allowed"),
        ({"hidden_size": "wide"}, r"model_type='qwen2' is not allowed"),
        (
            {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
            r"layer_types=\['sliding_attention'\] is not allowed: only layers of full attention",
        ),
        (
            {"model_type": "mistral", "sliding_window": 8},
            r"sliding_window=8 is not allowed: only attention over all 256 positions",
        ),
        (
            {"model_type": "gemma2", "head_dim": 8},
            r"model_type='gemma2' is not allowed: capped logits and attention \(final_logit_softcapping=30\.0, "
            r"attn_logit_softcapping=50\.0, sliding_window=4096\) are not supported",
        ),
        (
            {"model_type": "gemma2", "head_dim": 8, "attn_logit_softcapping": None},
            r"capped logits and attention \(final_logit_softcapping=30\.0, sliding_window=4096\)",
        ),
        ({"model_type": "gemma3_text", "head_dim": 8}, r"layer_types=\['sliding_attention'\] is not allowed"),
        (
            {"model_type": "granite", "logits_scaling": 0.0},
            r"logits_scaling=0\.0 is not allowed: it must be a number above",
        ),
        ({"model_type": "cohere", "logit_scale": -1.0}, r"logit_scale=-1\.0 is not allowed: it must be a number above"),
    ],
)
def test_what_is_no_such_model_is_refused(fields: dict[str, Any] | None, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        HFBackbone(HFModelConfig(None if fields is None else {"model_type": "qwen2", **DENSE, **fields}))


def test_compiling_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"precision\.compile=True is not allowed: it is for our own backbone"):
        model(precision=PlainPrecision(compile=True))


def test_no_code_of_a_checkpoint_is_named() -> None:
    fields = HFModelConfig(
        {"model_type": "qwen2", "auto_map": {"AutoModel": "evil.Model"}, "torch_dtype": "x"}
    ).fields()
    assert fields == {"model_type": "qwen2"}


def test_nothing_is_dropped_and_padding_learns() -> None:
    """Dropout of a checkpoint would differ between sampler and trainer; a pad id would freeze its row of the embedding."""
    backbone = model("llama", attention_dropout=0.5, pad_token_id=1).train()
    batch = pack([random_documents((12,), VOCABULARY, seed=0)])
    assert torch.equal(backbone.hidden(batch).hidden, backbone.hidden(batch).hidden)
    assert backbone.model.get_input_embeddings().padding_idx is None


# -------------------------------------------------------------------------------------------------- rotary frequencies

LONG = {
    "rope_type": "longrope",
    "short_factor": [1.0] * 4,
    "long_factor": [2.0, 3.0, 5.0, 8.0],
    "original_max_position_embeddings": 16,
    "factor": 16.0,
}
HOLD: dict[str, dict[str, Any]] = {
    "default": {"rope_type": "default"},
    "linear": {"rope_type": "linear", "factor": 4.0},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
    "yarn, slow": {"rope_type": "yarn", "factor": 16.0, "original_max_position_embeddings": 8, "beta_slow": 2.0},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    },
    "proportional": {"rope_type": "proportional", "partial_rotary_factor": 0.5},
}
MOVE: dict[str, dict[str, Any]] = {
    "dynamic": {"rope_parameters": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10_000.0}},
    "dynamic, older form": {"rope_scaling": {"type": "dynamic", "factor": 2.0}},
    "dynamic, with its name": {"rope_scaling": {"rope_type": "dynamic", "factor": 8.0}},
    "longrope": {"rope_parameters": {**LONG, "rope_theta": 10_000.0}},
    "longrope, older form": {"rope_scaling": LONG},
}


def rows() -> TokenBatch:
    """Documents of 9, 14 and 3 tokens in one row, one of 26 in the other: beyond and within 16 positions."""
    return pack([random_documents(lengths, VOCABULARY, seed) for seed, lengths in enumerate([(9, 14, 3), (26,)])], 26)


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
@pytest.mark.parametrize("rope", HOLD)
def test_frequencies_that_stay_are_right_in_packed_rows_and_on_a_cache(kind: str, rope: str) -> None:
    parameters = {"rope_theta": 10_000.0, **HOLD[rope]}
    found = row_agreement(model(kind, rope_parameters=parameters), rows())
    assert 0.0 < found.packed < 1e-5 and 0.0 <= found.cached < 1e-5  # on some processors cached steps agree to the bit


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
@pytest.mark.parametrize("rope", MOVE)
def test_frequencies_that_move_with_the_batch_are_refused(
    kind: str, rope: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = {"head_dim": 8, "max_position_embeddings": 16, **MOVE[rope]}
    with pytest.raises(InvalidInput, match=r"rope_type='(dynamic|longrope)' is not allowed: its frequencies depend on"):
        model(kind, **fields)
    # Were they not, rows and caches would not agree, which is what the self-check of every stage looks at.
    monkeypatch.setattr(hf_model, "refuse_moving_frequencies", lambda made: None)
    assert row_agreement(model(kind, **fields), rows()).packed > 1e-2


def test_a_published_phi3_with_longrope_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"rope_type='longrope'"):
        model("phi3", rope_scaling=LONG, original_max_position_embeddings=16, pad_token_id=0, sliding_window=None)


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
def test_recompute_changes_no_bit(kind: str) -> None:
    rows = [random_documents((9, 1, 14), VOCABULARY, seed=0)]

    def run(recompute: bool) -> tuple[list[torch.Tensor], int]:
        backbone = model(kind, num_hidden_layers=6).train()
        for parameter in backbone.parameters():
            parameter.grad = torch.zeros_like(parameter)
        if recompute:
            backbone.recompute_blocks()
        before = [*backbone.parameters(), *(p.grad for p in backbone.parameters() if p.grad is not None)]
        with LiveTensors(before) as live:
            backbone.hidden(pack(rows)).hidden.square().mean().backward()
        return [parameter.grad for parameter in backbone.parameters() if parameter.grad is not None], live.peak

    (kept, most), (again, less) = run(False), run(True)
    assert all(torch.equal(a, b) for a, b in zip(kept, again, strict=True)) and less < most / 2


def test_a_class_that_cannot_compute_its_layers_again_is_refused() -> None:
    backbone = model()
    backbone.model.supports_gradient_checkpointing = False
    with pytest.raises(InvalidInput, match=r"trainer\.recompute=True is not allowed: Qwen2ForCausalLM"):
        backbone.recompute_blocks()
