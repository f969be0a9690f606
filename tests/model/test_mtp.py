"""Multi-token prediction: which embedding stands where, what crosses a border, and HuggingFace's layer."""

from __future__ import annotations

import pytest
import torch

from r1_lightning.functional.masking import document_attention_mask, targets_ahead
from r1_lightning.model.hf_weights import state_to_hf
from r1_lightning.model.masked_attention import DenseRows
from r1_lightning.model.mtp import shift_left
from tests.model.tiny import angles, backbone, hf_config, left_pad, normal, pack, random_documents, tiny

DEPTH = 2


def _model(**changes):
    return backbone(tiny(mtp_depth=DEPTH, **changes), seed=4)


def test_shift_left_literal():
    x = torch.arange(1.0, 9.0).view(1, 4, 2)
    assert shift_left(x, 1).tolist() == [[[3, 4], [5, 6], [7, 8], [0, 0]]]
    assert shift_left(x, 3).tolist() == [[[7, 8], [0, 0], [0, 0], [0, 0]]]
    assert shift_left(x, 5).tolist() == [[[0, 0]] * 4]


@torch.no_grad()
def test_against_huggingface():
    """Same weights through the mapping of `hf.py`, whose halves of the projection stand the other way round."""
    from transformers.modeling_layers import MtpLayer
    from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3DecoderLayer, DeepseekV3RMSNorm

    model = _model()
    config = model.config
    theirs = MtpLayer(hf_config(config), DeepseekV3DecoderLayer, DeepseekV3RMSNorm, layer_idx=config.n_layers).eval()
    prefix = f"model.layers.{config.n_layers}."
    state = {
        name.removeprefix(prefix): tensor
        for name, tensor in state_to_hf(model.state_dict(), config, with_mtp=True).items()
        if name.startswith(prefix)
    }
    own = {"enorm", "hnorm", "eh_proj"}
    named = {name if name.split(".")[0] in own else f"mtp_block.{name}": tensor for name, tensor in state.items()}
    named["post_norm.weight"] = named.pop("mtp_block.shared_head.norm.weight")
    theirs.load_state_dict(named, strict=True)

    hidden, embedding = normal(2, 9, 32, seed=1), normal(2, 9, 32, seed=2)
    ones = torch.ones(2, 9, dtype=torch.long)
    cos, sin = angles(model, torch.arange(9).expand(2, 9))
    mask = document_attention_mask(ones)
    ours, _ = model.mtp_modules[0](hidden, embedding, cos, sin, DenseRows(mask), ones.bool())
    both = (torch.cat([cos, cos], -1), torch.cat([sin, sin], -1))
    expected = theirs(embedding, hidden, both, mask, None, None)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("place", [3, 7, 11])
@torch.no_grad()
def test_module_k_at_position_i_uses_embedding_i_plus_k(place):
    """Another token at `place` is first seen at place - k by module k (eq 21), and at `place` by the main model."""
    model = _model()
    (document,) = random_documents([14], 61, seed=1)
    changed = document.copy()
    changed[place] = (document[place] + 1) % 61
    before, after = model.hidden(pack([[document]])), model.hidden(pack([[changed]]))
    outputs = [(before.hidden, after.hidden), *zip(before.mtp, after.mtp, strict=True)]
    for k, (one, other) in enumerate(outputs):
        moved = (one - other).abs().amax(-1)[0]
        assert moved[: place - k].max() < 1e-5
        assert moved[place - k] > 1e-2


@torch.no_grad()
def test_what_has_a_target_never_sees_another_document():
    """Where module k has a target (k + 1 on, same document), it computes what it would for the document alone."""
    model = _model()
    documents = random_documents([6, 1, 3, 9], 61, seed=2)
    batch = pack([documents], length=23)
    packed = model.hidden(batch).mtp
    checked = 0
    for number, document in enumerate(documents, start=1):
        alone = model.hidden(pack([[document]])).mtp
        here = batch.document_ids[0] == number
        for k in range(1, DEPTH + 1):
            _, has_target = targets_ahead(batch.token_ids, batch.document_ids, k + 1)
            n_targets = int((has_target[0] & here).sum())
            assert n_targets == max(len(document) - k - 1, 0)
            ours = packed[k - 1][0, here][:n_targets]
            torch.testing.assert_close(ours, alone[k - 1][0, :n_targets], atol=1e-5, rtol=0)
            checked += n_targets
    assert checked == (4 + 3) + 0 + (1 + 0) + (7 + 6)  # 6, 1, 3, 9 tokens at depths 1 and 2


@torch.no_grad()
def test_each_module_takes_the_hidden_state_of_the_one_before():
    model = _model()
    batch = pack([random_documents([12], 61, seed=3)])
    before = model.hidden(batch)
    model.mtp_modules[0].norm.weight.mul_(-1.0)
    after = model.hidden(batch)
    assert torch.equal(before.hidden, after.hidden)
    torch.testing.assert_close(after.mtp[0], -before.mtp[0], atol=1e-6, rtol=0)
    assert (after.mtp[1] - before.mtp[1]).abs().max() > 1e-2


def test_embedding_and_head_are_the_main_models():
    names = {name for name, _ in _model().named_parameters() if name.startswith("mtp_modules")}
    assert names
    assert not any("embedding.weight" in name or "head" in name for name in names)


def test_modules_of_a_dense_model_are_dense():
    model = _model(n_dense_layers=2)
    assert model.hidden(pack([random_documents([5], 61, seed=0)])).routes.shape[0] == 0


@pytest.mark.parametrize("changes", [{}, {"n_dense_layers": 2}, {"q_lora_rank": None}])
@torch.no_grad()
def test_steps_on_a_cache_equal_the_training_forward(changes):
    """Module 1 over left-padded prompts, then over columns that count in some rows only."""
    model = _model(**changes)
    texts, prompts = random_documents([12, 9, 11], 61, seed=6), [6, 1, 3]
    whole = [model.hidden(pack([[text]])) for text in texts]
    starts = [text[:n] for text, n in zip(texts, prompts, strict=True)]
    # At the last token of a prompt the next is not known yet: it comes with the first step.
    token_ids, is_token = left_pad(starts)
    hidden = torch.zeros(3, 6, 32)
    for row, n in enumerate(prompts):
        hidden[row, 6 - n :] = whole[row].hidden[0, :n]
    cache = model.new_mtp_cache(3, 16)
    assert len(cache.states) == 1
    prefilled = model.step_mtp(hidden[:, :-1], token_ids[:, 1:], is_token[:, :-1], cache)
    done = [n - 1 for n in prompts]
    for row, n in enumerate(done):
        torch.testing.assert_close(prefilled[row, 5 - n :], whole[row].mtp[0][0, :n], atol=1e-5, rtol=0)
    for counts in ([1, 1, 1], [2, 1, 2], [1, 2, 2], [1, 2, 2]):
        fed = range(max(counts))
        hidden = torch.stack([torch.stack([whole[r].hidden[0, done[r] + i] for i in fed]) for r in range(3)])
        next_ids = torch.tensor([[texts[r][done[r] + 1 + i] for i in fed] for r in range(3)])
        counted = torch.tensor([[i < count for i in fed] for count in counts])
        output = model.step_mtp(hidden, next_ids, counted, cache)
        for row, count in enumerate(counts):
            there = whole[row].mtp[0][0, done[row] : done[row] + count]
            torch.testing.assert_close(output[row, :count], there, atol=1e-5, rtol=0)
            done[row] += count
        cache.close_gaps()
    assert done == [10, 6, 9]
