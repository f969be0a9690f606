"""The whole backbone as the stages see it: packed rows, cached steps, what it reports, and what may not matter."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from r1_lightning.functional.cross_entropy import masked_cross_entropy, mtp_loss
from r1_lightning.functional.masking import targets_ahead
from r1_lightning.model.backbone import DeepSeekBackbone
from r1_lightning.model.gqa import GQAKind
from r1_lightning.model.precision import PlainPrecision
from r1_lightning.types.tensors import TokenBatch
from tests.model.tiny import backbone, left_pad, pack, random_documents, randomise, tiny
from tests.support.memory import LiveTensors

LENGTHS = [7, 3, 10]
VARIANTS = [tiny(), tiny(q_lora_rank=None, n_dense_layers=0, mtp_depth=2), tiny(n_dense_layers=2, tie_embeddings=True)]


def _documents(seed: int = 0) -> list[list[int]]:
    return random_documents(LENGTHS, 61, seed)


# ------------------------------------------------------------------------------------------------ what may not matter


@pytest.mark.parametrize("config", VARIANTS)
@torch.no_grad()
def test_a_document_is_what_it_would_be_alone(config):
    model, documents = backbone(config), _documents()
    batch = pack([documents], length=25)
    hidden = model.hidden(batch).hidden
    for number, document in enumerate(documents, start=1):
        alone = model.hidden(pack([[document]])).hidden[0]
        torch.testing.assert_close(hidden[batch.document_ids == number], alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("config", VARIANTS)
@torch.no_grad()
def test_another_token_in_one_document_changes_nothing_in_another(config):
    model, documents = backbone(config), _documents()
    changed = [documents[0], [(token + 1) % 61 for token in documents[1]], documents[2]]
    batch = pack([documents])
    moved = (model.hidden(batch).hidden - model.hidden(pack([changed])).hidden).abs().amax(-1)
    assert moved[batch.document_ids != 2].max() < 1e-5
    assert moved[batch.document_ids == 2].min() > 1e-2


def test_no_gradient_flows_between_documents():
    """Exactly none: documents use tokens of their own, so each row of the embedding belongs to one document."""
    model = backbone(tiny(mtp_depth=0))
    batch = pack([[[1, 2, 3, 4], [11, 12, 13], [21, 22]]], length=12)
    model.hidden(batch).hidden[batch.document_ids == 2].square().sum().backward()
    influence = model.embedding.weight.grad.abs().amax(-1)
    assert influence[11:14].min() > 0.0
    assert influence.sum() == influence[11:14].sum()


@torch.no_grad()
def test_padding_and_what_stands_in_it_do_not_matter():
    model, documents = backbone(), _documents()
    exact, padded = pack([documents]), pack([documents], length=31)
    filled = TokenBatch(padded.token_ids.masked_fill(~padded.is_token, 17), padded.position_ids, padded.document_ids)
    expected = model.hidden(exact).hidden
    for batch in (padded, filled):
        output = model.hidden(batch)
        torch.testing.assert_close(output.hidden[:, :20], expected, atol=1e-5, rtol=0)
        assert output.hidden.isfinite().all()


@torch.no_grad()
def test_order_of_rows_does_not_matter():
    model = backbone()
    rows = [random_documents([4, 9], 61, seed) for seed in range(5)]
    order = [3, 0, 4, 2, 1]
    expected, shuffled = model.hidden(pack(rows)), model.hidden(pack([rows[i] for i in order]))
    torch.testing.assert_close(shuffled.hidden, expected.hidden[order], atol=1e-5, rtol=0)
    torch.testing.assert_close(shuffled.mtp[0], expected.mtp[0][order], atol=1e-5, rtol=0)
    assert torch.equal(shuffled.routes.sort(-1)[0], expected.routes[:, order].sort(-1)[0])


@torch.no_grad()
def test_the_same_call_gives_the_same_bits():
    model, batch = backbone(), pack([_documents()])
    assert torch.equal(model.hidden(batch).hidden, model.hidden(batch).hidden)


# ---------------------------------------------------------------------------------------------------------- stepping


@pytest.mark.parametrize("config", VARIANTS)
@torch.no_grad()
def test_steps_after_a_left_padded_prefill_equal_the_forward(config):
    model = backbone(config)
    prompts, new = random_documents([6, 1, 4], 61, seed=1), torch.tensor(random_documents([5] * 3, 61, seed=2))
    cache = model.new_cache(3, 11)
    tokens, is_token = left_pad(prompts)
    hidden = [model.step(tokens, is_token, cache).hidden]
    hidden += [model.step(new[:, t : t + 1], torch.ones(3, 1, dtype=torch.bool), cache).hidden for t in range(5)]
    stepped = torch.cat(hidden, 1)
    for row, prompt in enumerate(prompts):
        whole = model.hidden(pack([[prompt + new[row].tolist()]])).hidden[0]
        torch.testing.assert_close(stepped[row, -len(whole) :], whole, atol=1e-5, rtol=0)


LONG: dict[str, Any] = {"max_positions": 2048}
NO_MLA = {"q_lora_rank": 0, "kv_lora_rank": 0, "qk_nope_head_dim": 0, "qk_rope_head_dim": 0, "v_head_dim": 0}
LONG_KINDS = [
    tiny(**LONG),
    tiny(**LONG, **NO_MLA, attention_kind=GQAKind(1, 8)),
    tiny(**LONG, n_layers=4, attention_kind="lightning", softmax_attention_every=2),
]


@pytest.mark.parametrize("config", LONG_KINDS)
@torch.no_grad()
def test_long_prompts_are_read_without_a_mask_and_continue_as_the_forward(config):
    """Prompts longer than `MOST_DENSE_TOKENS`, one, and one between; then three steps onto what was cached."""
    model = backbone(config)
    prompts, new = random_documents([300, 1, 120], 61, seed=1), torch.tensor(random_documents([3] * 3, 61, seed=2))
    cache = model.new_cache(3, 303)
    hidden = [model.step(*left_pad(prompts), cache).hidden]
    hidden += [model.step(new[:, t : t + 1], torch.ones(3, 1, dtype=torch.bool), cache).hidden for t in range(3)]
    stepped = torch.cat(hidden, 1)
    for row, prompt in enumerate(prompts):
        whole = model.hidden(pack([[prompt + new[row].tolist()]])).hidden[0]
        torch.testing.assert_close(stepped[row, -len(whole) :], whole, atol=2e-5, rtol=0)
    ids, whole = torch.tensor(prompts[:1]), model.hidden(pack([prompts[:1]]))
    ahead = model.step_mtp(
        whole.hidden[:, :-1], ids[:, 1:], torch.ones(1, 299, dtype=torch.bool), model.new_mtp_cache(1, 300)
    )
    torch.testing.assert_close(ahead, whole.mtp[0][:, :-1], atol=2e-5, rtol=0)


@pytest.mark.parametrize("config", LONG_KINDS)
@torch.no_grad()
def test_memory_of_reading_a_prompt_grows_with_its_length(config):
    """Twice the tokens take twice the memory; with a mask for every head it would be nearly four times."""
    model = backbone(config)

    def peak(tokens: int) -> int:
        ids = torch.zeros(1, tokens, dtype=torch.long)
        with LiveTensors([*model.parameters(), *model.buffers()]) as live:
            model.step(ids, torch.ones_like(ids, dtype=torch.bool), model.new_cache(1, tokens))
        return live.peak

    assert peak(2048) < 2.1 * peak(1024)


@torch.no_grad()
def test_selected_rows_continue_as_if_they_had_been_alone():
    """A prompt's row serves its group, ended rows leave, and the rest goes on undisturbed."""
    model = backbone()
    prompts = random_documents([6, 2], 61, seed=1)
    cache = model.new_cache(2, 12)
    model.step(*left_pad(prompts), cache)
    cache.select_rows(torch.tensor([1, 1, 0, 1]))  # group of three for the second prompt
    first = torch.tensor([[5], [6], [7], [8]])
    model.step(first, torch.ones(4, 1, dtype=torch.bool), cache)
    cache.select_rows(torch.tensor([3, 2]))  # rows 0 and 1 have ended
    last = model.step(torch.tensor([[9], [10]]), torch.ones(2, 1, dtype=torch.bool), cache).hidden[:, 0]
    for row, sequence in enumerate(([*prompts[1], 8, 9], [*prompts[0], 7, 10])):
        torch.testing.assert_close(last[row], model.hidden(pack([[sequence]])).hidden[0, -1], atol=1e-5, rtol=0)


@torch.no_grad()
def test_steps_report_the_routes_of_the_forward():
    model, (document,) = backbone(tiny(mtp_depth=0)), random_documents([9], 61, seed=3)
    cache = model.new_cache(1, 9)
    one_by_one = [model.step(torch.tensor([[t]]), torch.ones(1, 1, dtype=torch.bool), cache).routes for t in document]
    whole = model.hidden(pack([[document]])).routes
    assert torch.equal(torch.cat(one_by_one, 2).sort(-1)[0], whole.sort(-1)[0])


# ---------------------------------------------------------------------------------------------------- replayed routes


@torch.no_grad()
def test_replaying_ones_own_routes_changes_nothing():
    model, batch = backbone(tiny(mtp_depth=0)), pack([_documents()])
    free = model.hidden(batch)
    replayed = model.hidden(batch, replayed_LBTK=free.routes)
    assert torch.equal(replayed.hidden, free.hidden) and torch.equal(replayed.routes, free.routes)
    nobody = model.hidden(batch, replayed_LBTK=torch.full_like(free.routes, -1))
    assert torch.equal(nobody.hidden, free.hidden)


@torch.no_grad()
def test_replayed_experts_are_taken_where_they_are_named_and_weighed_by_todays_scores():
    """Token 3 is sent elsewhere: its own and later hidden states move, earlier ones do not; gates still sum to route_scale."""
    model, batch = backbone(tiny(mtp_depth=0)), pack([random_documents([9], 61, seed=3)])
    free = model.hidden(batch)
    routes = torch.full_like(free.routes, -1)
    n_experts = model.config.n_routed_experts
    taken = [e for e in range(n_experts) if e not in free.routes[0, 0, 3].tolist()][: routes.shape[-1]]
    routes[0, 0, 3] = torch.tensor(taken)
    moved = model.hidden(batch, replayed_LBTK=routes)
    assert moved.routes[0, 0, 3].tolist() == taken
    torch.testing.assert_close(moved.hidden[0, :3], free.hidden[0, :3], atol=1e-5, rtol=0)
    assert (moved.hidden[0, 3] - free.hidden[0, 3]).abs().max() > 1e-3


def test_routes_of_another_number_of_layers_are_refused():
    model, batch = backbone(tiny(mtp_depth=0)), pack([_documents()])
    routes = model.hidden(batch).routes
    with pytest.raises(ValueError, match="zip"):
        model.hidden(batch, replayed_LBTK=routes[:-1])


# ---------------------------------------------------------------------------------------------------- what it reports


def test_shapes_with_experts_and_mtp():
    model = backbone(tiny(n_layers=3, mtp_depth=2)).train()  # two mixture layers and two MTP blocks
    batch = pack([_documents(), _documents(1)], length=22)
    output = model.hidden(batch)
    assert output.hidden.shape == (2, 22, 32)
    assert [mtp.shape for mtp in output.mtp] == [(2, 22, 32)] * 2
    assert output.expert_load.shape == (4, 8)
    assert output.routes.shape == (4, 2, 22, 2)
    assert output.balance_loss.shape == ()
    assert model.unembed(output.hidden).shape == (2, 22, 61)
    without = model.hidden(batch, with_mtp=False)
    assert (without.mtp, without.expert_load.shape) == ((), (2, 8))
    assert torch.equal(without.hidden, output.hidden)


def test_a_dense_model_leaves_the_optional_fields_empty():
    output = backbone(tiny(n_dense_layers=2, mtp_depth=0)).train().hidden(pack([_documents()]))
    assert output.mtp == ()
    assert (output.expert_load.numel(), output.routes.numel(), output.balance_loss.item()) == (0, 0, 0.0)


def test_load_is_counted_in_training_forwards_only():
    model, batch = backbone(), pack([_documents()], length=25)
    assert model.eval().hidden(batch).expert_load.sum() == 0
    load = model.train().hidden(batch).expert_load
    assert load.sum(-1).tolist() == [2 * sum(LENGTHS)] * 2  # two chosen experts per token; one mixture layer, one MTP


def test_balance_loss_sums_over_layers():
    model = backbone(tiny(n_layers=3, mtp_depth=0, balance_loss_alpha=0.5)).train()
    both = model.hidden(pack([_documents()])).balance_loss
    for block in model.blocks[1:]:
        block.feed_forward.router.weight.data.zero_()  # all affinities equal: sum of f_i P_i is exactly 1
    assert both > 1.0
    assert model.hidden(pack([_documents()])).balance_loss.item() == pytest.approx(2 * 0.5, abs=1e-5)


def test_expert_bias_is_written_and_read_in_the_order_of_the_load():
    model = backbone(tiny(n_layers=3, mtp_depth=1)).train()
    bias = torch.arange(24.0).view(3, 8)
    model.set_expert_bias(bias)
    assert torch.equal(model.expert_bias(), bias)
    assert torch.equal(model.mtp_modules[0].block.feed_forward.router.expert_bias, bias[2])
    # An expert of the second mixture layer made unattractive has no load there, and has elsewhere
    bias = torch.zeros(3, 8)
    bias[1, 4] = -100.0
    model.set_expert_bias(bias)
    load = model.hidden(pack([random_documents([60], 61, seed=5)])).expert_load
    assert load[1, 4] == 0
    assert load[[0, 2], 4].min() > 0
    with pytest.raises(ValueError, match="zip"):
        model.set_expert_bias(torch.zeros(2, 8))


def test_expert_bias_is_saved_with_the_weights_and_tables_are_not():
    names = set(backbone().state_dict())
    assert "blocks.1.feed_forward.router.expert_bias" in names
    assert not names & {"cos", "sin"}


def test_logits_are_the_head_in_fp32():
    model = backbone()
    hidden = model.hidden(pack([_documents()])).hidden
    torch.testing.assert_close(model.unembed(hidden), hidden @ model.head.weight.T, atol=1e-5, rtol=0)
    tied = backbone(tiny(tie_embeddings=True))
    assert tied.head.weight is tied.embedding.weight


# ----------------------------------------------------------------------------------------------------------- training


@pytest.mark.parametrize("config", VARIANTS)
def test_every_parameter_receives_a_gradient(config):
    model = backbone(config).train()
    batch = pack([random_documents([40, 20], 61, seed=1), random_documents([50], 61, seed=2)])
    output = model.hidden(batch)
    losses = []
    for depth, hidden in enumerate((output.hidden, *output.mtp)):
        targets, mask = targets_ahead(batch.token_ids, batch.document_ids, depth + 1)
        losses.append(masked_cross_entropy(model.token_logprobs(hidden[mask], targets[mask])[0], mask[mask]))
    (losses[0] + mtp_loss(losses[1:], 0.3) + output.balance_loss).backward()
    silent = [name for name, value in model.named_parameters() if value.grad is None or value.grad.abs().max() == 0]
    assert silent == []


def test_bf16_stays_near_fp32_and_steps_near_the_forward():
    exact = backbone(tiny(n_dense_layers=2, mtp_depth=0))  # dense: no route may flip
    model = DeepSeekBackbone(exact.config, PlainPrecision("bf16")).eval()
    model.load_state_dict(exact.state_dict())
    (document,) = random_documents([12], 61, seed=1)
    batch = pack([[document]])
    with torch.no_grad():
        expected = exact.unembed(exact.hidden(batch).hidden)
        logits = model.unembed(model.hidden(batch).hidden)
        cache = model.new_cache(1, 12)
        stepped = model.unembed(model.step(batch.token_ids, batch.is_token, cache).hidden)
    assert logits.dtype == torch.float32
    for result in (logits, stepped):
        assert 1e-4 < (result - expected).abs().max() < 0.1


def test_built_from_its_seed():
    config, batch = tiny(), pack([_documents()])
    hidden = [DeepSeekBackbone(config, seed=seed).eval().hidden(batch).hidden for seed in (3, 3, 4)]
    assert torch.equal(hidden[0], hidden[1])
    assert not torch.equal(hidden[0], hidden[2])


def test_a_state_dict_carries_everything():
    model, other = backbone(seed=1), backbone(seed=2)
    randomise(other, seed=9)
    other.load_state_dict(model.state_dict(), strict=True)
    batch = pack([_documents()])
    assert torch.equal(model.hidden(batch).mtp[0], other.hidden(batch).mtp[0])


@pytest.mark.parametrize("changes", [{}, {"mtp_depth": 2, "balance_loss_alpha": 0.01}, {"n_dense_layers": 2}])
def test_recompute_changes_no_bit_and_counts_no_expert_twice(changes: dict[str, Any]) -> None:
    """Loss, every gradient, load and routes equal those of the forward that keeps its activations, MTP modules included."""

    def run(recompute: bool) -> list[torch.Tensor]:
        model = backbone(tiny(**changes)).train()
        if recompute:
            model.recompute_blocks()
        output = model.hidden(pack([_documents()], length=25))
        loss = sum((part.square().mean() for part in output.mtp), output.hidden.square().mean()) + output.balance_loss
        loss.backward()
        grads = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        return [loss, output.expert_load, output.routes, *grads]

    kept, again = run(False), run(True)
    assert len(kept) == len(again) > 20 and all(torch.equal(a, b) for a, b in zip(kept, again, strict=True))


def test_recompute_keeps_the_input_of_each_block_alone() -> None:
    """Of 8 blocks the peak of forward and backward holds the inputs and the activations of one, less than a third of all."""

    def peak(recompute: bool) -> int:
        model = backbone(tiny(n_layers=8, n_dense_layers=8, mtp_depth=0)).train()
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        if recompute:
            model.recompute_blocks()
        batch = pack([random_documents([60], 61, seed=1)])
        before = [*model.parameters(), *model.buffers(), *(p.grad for p in model.parameters() if p.grad is not None)]
        with LiveTensors(before) as live:
            model.hidden(batch).hidden.sum().backward()
        return live.peak

    assert peak(True) < peak(False) / 3
