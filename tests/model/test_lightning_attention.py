"""Lightning attention in the backbone: documents, padding, steps, and what does not grow with the length of the text."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from r1_lightning.functional.linear_attention import decay_slopes
from r1_lightning.functional.masking import targets_ahead
from r1_lightning.model import lightning_attention as module
from r1_lightning.model.backbone import DeepSeekBackbone
from r1_lightning.model.lightning_attention import LightningAttention, LightningKind
from r1_lightning.model.mla import MLA
from r1_lightning.model.precision import PlainPrecision
from r1_lightning.types.tensors import TokenBatch
from tests.model.tiny import backbone, left_pad, normal, pack, random_documents, tiny

HYBRID = tiny(n_layers=4, attention_kind="lightning", softmax_attention_every=4)
VARIANTS = [
    HYBRID,
    tiny(n_layers=4, attention_kind="lightning", softmax_attention_every=2, n_heads=3, v_head_dim=6),
    tiny(n_layers=3, attention_kind="lightning", softmax_attention_every=3, n_dense_layers=3, mtp_depth=2),
]
LENGTHS = [7, 3, 10]


@pytest.fixture(autouse=True, params=[4, 64])
def block_tokens(request, monkeypatch):
    """Rows of these tests are short: blocks of 4 make several of them, 64 is what ships."""
    monkeypatch.setattr(module, "BLOCK_TOKENS", request.param)
    return request.param


def _lightning_only(model: DeepSeekBackbone) -> DeepSeekBackbone:
    """The same model without the layers that have MLA, for what holds of lightning attention alone."""
    model = copy.deepcopy(model)
    model.blocks = torch.nn.ModuleList(block for block in model.blocks if block.attention_kind == "lightning")
    return model


# --------------------------------------------------------------------------------------------------- what it computes


@torch.no_grad()
def test_against_the_equations_head_by_head():
    """Figure 3, eq 5 and the decay of the code as a loop over heads and tokens, in double precision."""
    model = backbone(HYBRID)
    config, layer, x = HYBRID, model.blocks[1].attention, normal(1, 11, 32, seed=3)
    heads, width = config.n_heads, config.lightning_head_dim
    qkv = F.silu(x[0].double() @ layer.qkv.weight.double().T)
    o = torch.zeros(11, heads, width, dtype=torch.float64)
    for h in range(heads):
        q, k, v = qkv[:, 3 * width * h : 3 * width * (h + 1)].split(width, -1)
        state = torch.zeros(width, width, dtype=torch.float64)
        for t in range(11):
            state = torch.exp(-decay_slopes(heads, 1, 4)[h].double()) * state + torch.outer(k[t], v[t])
            o[t, h] = q[t] @ state
    flat = o.flatten(1)
    normed = flat / (flat.square().mean(-1, keepdim=True) + 1e-6).sqrt() * layer.norm.weight.double()
    expected = (torch.sigmoid(x[0].double() @ layer.gate.weight.double().T) * normed) @ layer.out.weight.double().T
    mask = LightningKind().row_mask(torch.ones(1, 11, dtype=torch.long))
    found = layer(x, *(torch.empty(0),) * 2, mask)[0].double()
    assert found.std() > 0.1
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_layers_have_the_kinds_of_the_configuration():
    model = DeepSeekBackbone(HYBRID)
    assert [type(block.attention) for block in model.blocks] == [LightningAttention] * 3 + [MLA]
    assert type(model.mtp_modules[0].block.attention) is MLA
    for layer, block in enumerate(list(model.blocks)[:3]):
        assert torch.equal(block.attention.slopes, decay_slopes(2, layer, 4))
    assert not any("slopes" in name for name in model.state_dict())


# --------------------------------------------------------------------------------------------------- documents, padding


@pytest.mark.parametrize("config", VARIANTS)
@torch.no_grad()
def test_a_document_is_what_it_would_be_alone(config):
    model, documents = backbone(config), random_documents(LENGTHS, 61, seed=0)
    batch = pack([documents], length=25)
    output = model.hidden(batch)
    assert output.hidden.isfinite().all()
    for number, document in enumerate(documents, start=1):
        alone = model.hidden(pack([[document]])).hidden[0]
        torch.testing.assert_close(output.hidden[batch.document_ids == number], alone, atol=1e-5, rtol=0)


def test_no_gradient_flows_between_documents_or_from_padding():
    """Exactly none: documents use tokens of their own, so each row of the embedding belongs to one document."""
    model = backbone(tiny(n_layers=4, attention_kind="lightning", softmax_attention_every=4, mtp_depth=0))
    batch = pack([[[1, 2, 3, 4, 5], [11, 12, 13], [21, 22]]], length=14)
    model.hidden(batch).hidden[batch.document_ids == 2].square().sum().backward()
    influence = model.embedding.weight.grad.abs().amax(-1)
    assert influence[11:14].min() > 0.0
    assert influence.sum() == influence[11:14].sum()


@torch.no_grad()
def test_padding_and_what_stands_in_it_do_not_matter():
    model, documents = backbone(HYBRID), random_documents(LENGTHS, 61, seed=0)
    exact, padded = pack([documents]), pack([documents], length=31)
    filled = TokenBatch(padded.token_ids.masked_fill(~padded.is_token, 17), padded.position_ids, padded.document_ids)
    expected = model.hidden(exact).hidden
    for batch in (padded, filled):
        output = model.hidden(batch)
        torch.testing.assert_close(output.hidden[:, :20], expected, atol=1e-5, rtol=0)
        assert output.hidden.isfinite().all()


# ------------------------------------------------------------------------------------------------------------- stepping


@pytest.mark.parametrize("config", VARIANTS)
@pytest.mark.parametrize("chunks", [(1,) * 5, (2, 3), (4, 1)])
@torch.no_grad()
def test_steps_after_a_left_padded_prefill_equal_the_forward(config, chunks):
    model = backbone(config)
    prompts, new = random_documents([9, 1, 4], 61, seed=1), torch.tensor(random_documents([5] * 3, 61, seed=2))
    cache = model.new_cache(3, 14)
    hidden, start = [model.step(*left_pad(prompts), cache).hidden], 0
    for length in chunks:
        columns = new[:, start : start + length]
        hidden.append(model.step(columns, torch.ones_like(columns, dtype=torch.bool), cache).hidden)
        start += length
    stepped = torch.cat(hidden, 1)
    for row, prompt in enumerate(prompts):
        whole = model.hidden(pack([[prompt + new[row].tolist()]])).hidden[0]
        torch.testing.assert_close(stepped[row, -len(whole) :], whole, atol=1e-5, rtol=0)


@torch.no_grad()
def test_padding_between_the_tokens_of_a_row_lets_no_time_pass():
    """A row that waits, in a step of its own or in one with others, goes on as if it had not."""
    model, (document,) = backbone(HYBRID), random_documents([6], 61, seed=3)
    whole = model.hidden(pack([[document]])).hidden[0]
    for columns in ([0, 1, None, 2, None, None, 3, 4, 5], [None, None, 0, 1, 2, None, 3, 4, 5]):
        tokens = torch.tensor([[17 if place is None else document[place] for place in columns]])
        is_token = torch.tensor([[place is not None for place in columns]])
        for cuts in ((), (3,), tuple(range(1, 9))):
            cache, outputs = model.new_cache(1, 9), []
            for start, stop in zip((0, *cuts), (*cuts, 9), strict=True):
                outputs.append(model.step(tokens[:, start:stop], is_token[:, start:stop], cache).hidden)
            torch.testing.assert_close(torch.cat(outputs, 1)[is_token], whole, atol=1e-5, rtol=0)


@torch.no_grad()
def test_selected_rows_continue_as_if_they_had_been_alone():
    model = backbone(HYBRID)
    prompts = random_documents([6, 2], 61, seed=1)
    cache = model.new_cache(2, 12)
    model.step(*left_pad(prompts), cache)
    cache.select_rows(torch.tensor([1, 1, 0, 1]))
    model.step(torch.tensor([[5], [6], [7], [8]]), torch.ones(4, 1, dtype=torch.bool), cache)
    cache.select_rows(torch.tensor([3, 2]))
    last = model.step(torch.tensor([[9], [10]]), torch.ones(2, 1, dtype=torch.bool), cache).hidden[:, 0]
    for row, sequence in enumerate(([*prompts[1], 8, 9], [*prompts[0], 7, 10])):
        torch.testing.assert_close(last[row], model.hidden(pack([[sequence]])).hidden[0, -1], atol=1e-5, rtol=0)


def test_bf16_steps_stay_near_the_forward_and_keep_an_fp32_state():
    exact = backbone(tiny(n_layers=4, n_dense_layers=4, attention_kind="lightning", softmax_attention_every=4))
    model = DeepSeekBackbone(exact.config, PlainPrecision("bf16")).eval()
    model.load_state_dict(exact.state_dict())
    batch = pack([random_documents([12], 61, seed=1)])
    with torch.no_grad():
        expected = exact.unembed(exact.hidden(batch).hidden)
        cache = model.new_cache(1, 12)
        one_by_one = [model.step(batch.token_ids[:, [t]], batch.is_token[:, [t]], cache).hidden for t in range(12)]
        for hidden in (model.hidden(batch).hidden, torch.cat(one_by_one, 1)):
            assert 1e-4 < (model.unembed(hidden) - expected).abs().max() < 0.2
    assert [state.dtype for state in cache.states] == [torch.float32] * 3 + [torch.bfloat16]


# ------------------------------------------------------------------------------------------- what the length is to it


@torch.no_grad()
def test_cache_bytes_do_not_grow_with_length():
    """A state of 2 heads x 12 x 12 FP32 numbers per row and layer, for 10 tokens and for a million."""
    model = _lightning_only(backbone(HYBRID))
    assert {model.new_cache(5, length).bytes for length in (10, 1000, 1_000_000)} == {3 * 5 * 2 * 12 * 12 * 4}
    cache = model.new_cache(2, 40)
    sizes = set()
    for _ in range(40):
        model.step(torch.ones(2, 1, dtype=torch.long), torch.ones(2, 1, dtype=torch.bool), cache)
        sizes.add(cache.bytes)
    assert sizes == {3 * 2 * 2 * 12 * 12 * 4}


@torch.no_grad()
def test_a_hybrids_cache_grows_by_its_mla_layers_only():
    sizes = [backbone(HYBRID).new_cache(5, length).bytes for length in (10, 11)]
    assert sizes[1] - sizes[0] == 5 * HYBRID.cache_width * 4  # one layer of four


@torch.no_grad()
def test_decode_flops_do_not_grow_with_length():
    """What torch counts in a step of one token, after 1 token and after 50; in a hybrid MLA's share grows."""

    def flops(model: DeepSeekBackbone, past: int) -> int:
        cache = model.new_cache(2, past + 1)
        model.step(torch.ones(2, past, dtype=torch.long), torch.ones(2, past, dtype=torch.bool), cache)
        with (
            torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
            FlopCounterMode(display=False) as counter,
        ):
            model.step(torch.ones(2, 1, dtype=torch.long), torch.ones(2, 1, dtype=torch.bool), cache)
        return counter.get_total_flops()

    hybrid = backbone(tiny(n_layers=4, n_dense_layers=4, attention_kind="lightning", softmax_attention_every=4))
    alone = _lightning_only(hybrid)
    assert flops(alone, 1) == flops(alone, 9) == flops(alone, 50) > 0
    # One MLA layer, 2 rows x 2 heads: scores and sum over 49 more cached vectors of 16 + 4
    assert flops(hybrid, 50) - flops(hybrid, 1) == 2 * 2 * 2 * 2 * 20 * 49


# ------------------------------------------------------------------------------------------------------------- training


@pytest.mark.parametrize("config", VARIANTS)
def test_every_parameter_receives_a_gradient(config):
    model = backbone(config).train()
    batch = pack([random_documents([30, 20], 61, seed=1), random_documents([50], 61, seed=2)], length=53)
    output = model.hidden(batch)
    loss = output.balance_loss
    for depth, hidden in enumerate((output.hidden, *output.mtp)):
        targets, mask = targets_ahead(batch.token_ids, batch.document_ids, depth + 1)
        loss = loss - model.token_logprobs(hidden[mask], targets[mask])[0].mean()
    loss.backward()
    silent = [name for name, value in model.named_parameters() if value.grad is None or value.grad.abs().max() == 0]
    assert silent == []
    assert all(value.grad.isfinite().all() for value in model.parameters())
