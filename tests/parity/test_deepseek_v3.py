"""Whole-model parity with HuggingFace's DeepseekV3ForCausalLM: the same weights give the same logits to 1e-5 in FP32.

Several documents share a row of ours; HuggingFace sees each document alone. So one comparison covers the mathematics
of every block, the packing (positions, attention, padding) and the mapping of `model/hf_weights.py`. Weights are random and of
a size that gives logits a standard deviation of about 1, without which 1e-5 would mean nothing; norm weights are not
ones; expert biases are negative, without which a mask of 0.0 instead of -inf for forbidden groups would go unseen.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from r1_lightning.functional.masking import targets_ahead
from r1_lightning.model import router as router_module
from r1_lightning.model.backbone import DeepSeekBackbone
from r1_lightning.model.config import ModelConfig
from r1_lightning.model.hf_weights import state_to_hf
from tests.model.tiny import backbone, hf_twin, left_pad, pack, random_documents
from tests.parity.configurations import configurations, label

MAX_DIFFERENCE = 1e-5
CONFIGURATIONS = configurations()
HAS_MOE = [config for config in CONFIGURATIONS if config.n_dense_layers < config.n_layers]
GROUPED = [config for config in HAS_MOE if config.n_expert_groups > 1]
# Two rows of documents, the second with padding at its end; the longest document is beyond every YaRN original length.
ROW_LENGTHS = ((37, 1, 14, 5), (9, 40))


def _documents(config: ModelConfig) -> list[list[list[int]]]:
    return [random_documents(lengths, config.vocab_size, seed=i) for i, lengths in enumerate(ROW_LENGTHS)]


def _logits(model: DeepSeekBackbone, documents: list[list[list[int]]]) -> Tensor:
    """Our logits of every document token, one row after the other: N x V."""
    batch = pack(documents)
    return model.unembed(model.hidden(batch, with_mtp=False).hidden)[batch.is_token]


def _hf_logits(twin, documents: list[list[list[int]]]) -> Tensor:
    """HuggingFace's logits of the same tokens, each document in a forward pass of its own."""
    return torch.cat([twin(torch.tensor([document])).logits[0] for row in documents for document in row])


@pytest.mark.parametrize("config", CONFIGURATIONS, ids=label)
@torch.no_grad()
def test_logits_agree(config):
    model = backbone(config, seed=CONFIGURATIONS.index(config))
    documents = _documents(config)
    expected = _hf_logits(hf_twin(model), documents)
    assert 0.5 < expected.std() < 2.0
    assert (_logits(model, documents) - expected).abs().max() <= MAX_DIFFERENCE


@pytest.mark.parametrize("config", CONFIGURATIONS, ids=label)
@torch.no_grad()
def test_cached_steps_agree(config):
    """Prompts of uneven length prefilled together, then single tokens: every logit on the way is HuggingFace's."""
    model = backbone(config, seed=CONFIGURATIONS.index(config))
    rows = random_documents((31, 1, 12), config.vocab_size, seed=7)
    n_new = 8
    continuations = torch.tensor(random_documents((n_new,) * len(rows), config.vocab_size, seed=8))
    cache = model.new_cache(len(rows), max_tokens=31 + n_new)
    tokens, is_token = left_pad(rows)
    hidden = [model.step(tokens, is_token, cache).hidden]
    for t in range(n_new):
        new = continuations[:, t : t + 1]
        hidden.append(model.step(new, torch.ones_like(new, dtype=torch.bool), cache).hidden)
    logits = model.unembed(torch.cat(hidden, dim=1))

    twin = hf_twin(model)
    for row, prompt in enumerate(rows):
        whole = torch.tensor([prompt + continuations[row].tolist()])
        expected = twin(whole).logits[0]
        assert (logits[row, -whole.shape[1] :] - expected).abs().max() <= MAX_DIFFERENCE


@pytest.mark.parametrize("config", [HAS_MOE[0], GROUPED[-1]], ids=label)
def test_gradients_agree(config):
    """d(sum of cross-entropies) / d(every weight), to within 1e-4 of the largest entry of that weight's gradient."""
    model = backbone(config, seed=3)
    twin = hf_twin(model)
    documents = _documents(config)
    batch = pack(documents)
    targets, has_target = targets_ahead(batch.token_ids, batch.document_ids, 1)
    logits = model.unembed(model.hidden(batch, with_mtp=False).hidden)
    torch.nn.functional.cross_entropy(logits[has_target], targets[has_target], reduction="sum").backward()
    for document in (document for row in documents for document in row if len(document) > 1):
        ids = torch.tensor([document])
        torch.nn.functional.cross_entropy(twin(ids).logits[0, :-1], ids[0, 1:], reduction="sum").backward()

    ours = {name: torch.zeros_like(value) for name, value in model.state_dict().items()}
    ours |= {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    if config.tie_embeddings:
        ours["head.weight"] = ours["embedding.weight"]
    expected = {name: value.grad for name, value in twin.named_parameters()}
    compared = 0
    for name, gradient in state_to_hf(ours, config).items():
        if expected.get(name) is None:  # the bias buffers, and the second name of a tied head
            continue
        scale = expected[name].abs().max()
        assert scale > 0, f"{name} has no gradient: it is not compared"
        assert (gradient - expected[name]).abs().max() <= 1e-4 * scale, name
        compared += 1
    assert compared == len(expected)


# ------------------------------------------------------------------------------------------- does this test see enough?


def test_configurations_cover_the_architecture():
    assert len(CONFIGURATIONS) >= 12
    assert len(set(map(str, CONFIGURATIONS))) == len(CONFIGURATIONS)
    seen = {
        "yarn": {config.yarn is not None for config in CONFIGURATIONS},
        "rotation scaled by yarn": {c.yarn.mscale == c.yarn.mscale_all_dim for c in CONFIGURATIONS if c.yarn},
        "query compression": {config.q_lora_rank is not None for config in CONFIGURATIONS},
        "tied": {config.tie_embeddings for config in CONFIGURATIONS},
        "groups": {config.n_expert_groups > 1 for config in HAS_MOE},
        "shared experts": {config.n_shared_experts > 1 for config in HAS_MOE},
        "dense layers": {config.n_dense_layers > 0 for config in CONFIGURATIONS},
        "layers with experts": {config.n_dense_layers < config.n_layers for config in CONFIGURATIONS},
    }
    assert {name: values for name, values in seen.items() if values != {True, False}} == {}
    assert {config.n_limited_groups < config.n_expert_groups for config in GROUPED} == {True}
    longest = max(length for row in ROW_LENGTHS for length in row)
    assert all(longest > config.yarn.original_max_positions for config in CONFIGURATIONS if config.yarn)


def _zero_masked_choice(scores: Tensor, bias: Tensor, n_chosen: int, n_groups: int, n_limited: int) -> Tensor:
    """`choose_experts` with the mistake this file must be able to see: forbidden experts compete with a score of 0."""
    grouped = (scores + bias).unflatten(-1, (n_groups, -1))
    kept = grouped.topk(2, dim=-1).values.sum(-1).topk(n_limited, dim=-1).indices
    allowed = torch.zeros(grouped.shape[:-1], dtype=torch.bool).scatter_(-1, kept, True)
    return grouped.masked_fill(~allowed.unsqueeze(-1), 0.0).flatten(-2).topk(n_chosen, dim=-1).indices


@pytest.mark.parametrize("config", GROUPED, ids=label)
@torch.no_grad()
def test_a_mask_of_zero_would_be_seen(config, monkeypatch):
    """The biases are strong enough: with 0.0 in place of -inf most tokens are routed elsewhere and the logits move."""
    model = backbone(config, seed=CONFIGURATIONS.index(config))
    assert (model.expert_bias() < 0).all()
    documents = _documents(config)
    right, batch = _logits(model, documents), pack(documents)
    routes = model.hidden(batch, with_mtp=False).routes
    monkeypatch.setattr(router_module, "choose_experts", _zero_masked_choice)
    wrong_routes = model.hidden(batch, with_mtp=False).routes
    same = (routes.sort(-1).values == wrong_routes.sort(-1).values).all(-1)[:, batch.is_token]
    assert same.float().mean() < 0.5
    assert (_logits(model, documents) - right).abs().max() > 1000 * MAX_DIFFERENCE


@torch.no_grad()
def test_biases_and_norm_weights_matter():
    """With the biases at zero, or one norm at ones, the logits are others: neither is invisible to the comparison."""
    config = GROUPED[0]
    documents = _documents(config)
    right = _logits(backbone(config, seed=1), documents)
    without_bias = backbone(config, seed=1)
    without_bias.set_expert_bias(torch.zeros_like(without_bias.expert_bias()))
    plain_norm = backbone(config, seed=1)
    plain_norm.blocks[0].attention.kv_norm.weight.fill_(1.0)
    for other in (without_bias, plain_norm):
        assert (_logits(other, documents) - right).abs().max() > 1000 * MAX_DIFFERENCE
