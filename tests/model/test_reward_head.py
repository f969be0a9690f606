"""The scalar head: where it reads, what it starts from, what trains, and what an artefact of it holds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from r1_lightning.artefacts.weights import load_weights, save_weights, stored_shapes
from r1_lightning.model.hf_model import HFBackbone, HFModelConfig
from r1_lightning.model.precision import PlainPrecision
from r1_lightning.model.reward_head import HEAD, RewardModel
from r1_lightning.rollout.preference_rows import PreferenceRow, collate_preferences
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.tensors import PreferenceBatch, TokenBatch
from tests.support.miniature import EOS, PAD, backbone

DOCUMENTS = ((1, 2, 3, EOS), (1, 2, 9, 4, EOS), (7, 7, EOS), (5, EOS))
QWEN = {
    "model_type": "qwen2",
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
}


def batch_of(*documents: tuple[int, ...], row_tokens: int = 12) -> PreferenceBatch:
    rows = [PreferenceRow((document,), (1.0,)) for document in documents]
    return collate_preferences(rows, row_tokens, PAD)


def with_head(seed: int = 0, **changes: object) -> RewardModel:
    """A reward model whose head is not zero."""
    model = RewardModel(backbone(seed, **changes)).eval()
    torch.nn.init.normal_(model.score.weight, generator=torch.Generator().manual_seed(seed))
    return model


def hf_with_head() -> RewardModel:
    model = RewardModel(HFBackbone(HFModelConfig(QWEN), PlainPrecision(), seed=1)).eval()
    torch.nn.init.normal_(model.score.weight, generator=torch.Generator().manual_seed(2))
    return model


def test_a_fresh_head_scores_zero_and_learns_first() -> None:
    model = RewardModel(backbone())
    batch = batch_of(*DOCUMENTS)
    scores, _ = model.scores(batch.tokens, batch.ends)
    assert scores.tolist() == [0.0] * 4
    (scores * torch.tensor([1.0, -1.0, 2.0, 0.0])).sum().backward()
    assert model.score.weight.grad is not None and model.score.weight.grad.abs().max() > 0


@pytest.mark.parametrize("make", [with_head, hf_with_head])
def test_the_score_is_read_at_eos_whatever_shares_the_row(make: object) -> None:
    assert callable(make)
    model = make()
    packed = batch_of(*DOCUMENTS)
    assert packed.tokens.token_ids.flatten()[packed.ends].tolist() == [EOS] * 4
    together, _ = model.scores(packed.tokens, packed.ends)
    for document, score in zip(DOCUMENTS, together.tolist(), strict=True):
        hidden = model.backbone.hidden(TokenBatch.of_whole_rows(torch.tensor([document]))).hidden
        alone = hidden[0, -1] @ model.score.weight[0]  # the last token of the text by itself
        assert score == pytest.approx(alone.item(), abs=1e-5)
    assert len({round(score, 4) for score in together.tolist()}) == 4


def test_the_score_is_fp32_under_bf16() -> None:
    from r1_lightning.model.backbone import DeepSeekBackbone

    shape = backbone().config
    model = RewardModel(DeepSeekBackbone(shape, PlainPrecision("bf16"), seed=0))
    torch.nn.init.normal_(model.score.weight)
    batch = batch_of(*DOCUMENTS)
    assert model.scores(batch.tokens, batch.ends)[0].dtype == torch.float32


@pytest.mark.parametrize("make", [with_head, hf_with_head])
def test_an_artefact_holds_the_head_and_comes_back(make: object, tmp_path: Path) -> None:
    assert callable(make)
    model = make()
    path = tmp_path / "weights.safetensors"
    save_weights(model, path)
    assert HEAD in stored_shapes(path) and stored_shapes(path)[HEAD] == (1, 16)
    other = make()
    torch.nn.init.zeros_(other.score.weight)
    load_weights(other, path)
    batch = batch_of(*DOCUMENTS)
    assert torch.equal(other.scores(batch.tokens, batch.ends)[0], model.scores(batch.tokens, batch.ends)[0])


def test_a_language_model_is_no_reward_model(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_weights(backbone(), path)
    assert HEAD not in stored_shapes(path)
    with pytest.raises(InvalidInput, match="made by another architecture"):
        load_weights(with_head(), path)
    with pytest.raises(InvalidInput, match="made by another architecture"):
        save_weights(with_head(), path)
        load_weights(backbone(), path)


def test_expert_biases_are_the_backbone_s() -> None:
    model = with_head()
    bias = model.expert_bias()
    model.set_expert_bias(bias + 1)
    assert torch.equal(model.backbone.expert_bias(), bias + 1)
