"""LoRA adapters: W + (alpha / rank) B A, fresh ones change nothing, and only they train."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from r1_lightning.model import lora
from r1_lightning.model.hf_model import HFBackbone, HFModelConfig, hf_model_views
from r1_lightning.model.lora import LoraSettings, fold_adapters, has_adapters, is_adapter, merged, without_adapters
from r1_lightning.model.precision import PlainPrecision
from r1_lightning.stages.base import AdamWConfig
from r1_lightning.stages.muon import MuonConfig
from r1_lightning.types.errors import InvalidInput
from tests.model.tiny import left_pad, pack, random_documents
from tests.support.hf_folders import DENSE, VOCABULARY, adapted, move_adapters

IDS = torch.tensor(random_documents((20,), VOCABULARY, seed=0))
Q_PROJ = "model.layers.1.self_attn.q_proj"


def plain() -> HFBackbone:
    return HFBackbone(HFModelConfig({"model_type": "qwen2", **DENSE, "tie_word_embeddings": True})).eval()


def moved(**changes: Any) -> HFBackbone:
    return move_adapters(adapted(**changes)).eval()


def adapters(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in module.state_dict().items() if is_adapter(name)}


@torch.no_grad()
def test_fresh_adapters_change_no_bit() -> None:
    base, model = plain(), adapted().eval()
    assert torch.equal(model(IDS), base(IDS))
    assert torch.equal(model.train()(IDS), base(IDS))
    assert (move_adapters(model)(IDS) - base(IDS)).abs().max() > 0.01


def test_a_layer_by_hand() -> None:
    """x = (1, 2), W = [[1, 0], [0, 1]], A = (1, 1), B = (1, -1), alpha / rank = 6 / 1: x + 6 * (A x) B = (1, 2) + 18 (1, -1)."""
    model = adapted(settings=LoraSettings(1, 6), hidden_size=2, num_attention_heads=1, num_key_value_heads=1)
    layer = model.model.get_submodule(Q_PROJ)
    with torch.no_grad():
        layer.base_layer.weight.copy_(torch.eye(2))
        layer.base_layer.bias.zero_()
        layer.lora_A.default.weight.copy_(torch.tensor([[1.0, 1.0]]))
        layer.lora_B.default.weight.copy_(torch.tensor([[1.0], [-1.0]]))
    assert layer(torch.tensor([[1.0, 2.0]])).tolist() == [[19.0, -16.0]]
    assert merged(model.model)[f"{Q_PROJ}.weight"]().tolist() == [[7.0, 6.0], [-6.0, -5.0]]
    assert layer.base_layer.weight.tolist() == [[1.0, 0.0], [0.0, 1.0]]


@torch.no_grad()
def test_merged_weights_make_the_same_model_without_adapters() -> None:
    model, base = moved(), plain()
    made = merged(model.model)
    assert len(made) == 2 * 2  # q and v in two layers
    for name, (view,) in hf_model_views(base).items():
        view.copy_(made[name]() if name in made else hf_model_views(model)[name][0])
    assert (base(IDS) - model(IDS)).abs().max() <= 1e-5


def test_only_adapters_train() -> None:
    model = moved()
    assert {is_adapter(name) for name, p in model.named_parameters() if p.requires_grad} == {True}
    assert not any(p.requires_grad for name, p in model.named_parameters() if not is_adapter(name))
    model(IDS).logsumexp(-1).sum().backward()
    assert all((p.grad is not None and bool(p.grad.any())) == is_adapter(name) for name, p in model.named_parameters())


@pytest.mark.parametrize("optim", [AdamWConfig(lr=0.1), MuonConfig(lr=0.1)], ids=["AdamW", "Muon"])
def test_optimizers_hold_and_move_adapters_alone(optim: AdamWConfig) -> None:
    model = moved()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = optim.build(model)
    held = sum(parameter.numel() for group in optimizer.param_groups for parameter in group["params"])
    # rank 2; q: 32 -> 32, v: 32 -> 16, in two layers
    assert held == 2 * 2 * (32 + 32 + 32 + 16)
    model(IDS).logsumexp(-1).sum().backward()
    optimizer.step()
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == adapters(model).keys()


def test_adapters_belong_to_the_seed_and_leave_the_global_draws_alone() -> None:
    torch.manual_seed(3)
    wanted = torch.rand(2)
    torch.manual_seed(3)
    one, same, other = (adapters(adapted(seed=seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(2), wanted)
    matrices = [name for name in one if "lora_A" in name]
    assert len(matrices) == 4 and all(torch.equal(one[name], same[name]) for name in one)
    assert not any(torch.equal(one[name], other[name]) for name in matrices)
    assert not any(bool(tensor.any()) for name, tensor in one.items() if "lora_B" in name)
    # uniform within +-sqrt(6 / ((1 + 5) * 32)) = 0.1768
    assert 0.16 < max(one[name].abs().max().item() for name in matrices) <= 0.1768


# ------------------------------------------------------------------------------------------------- switched off and on


@torch.no_grad()
def test_without_adapters_it_is_the_base() -> None:
    model, base = moved(), plain()
    with_them = model(IDS)
    with without_adapters(model):
        assert torch.equal(model(IDS), base(IDS))
        with without_adapters(model):
            pass
        assert torch.equal(model(IDS), base(IDS))
    assert torch.equal(model(IDS), with_them)


def test_all_is_as_before_also_after_an_exception() -> None:
    model = moved()
    model.get_parameter(f"model.{Q_PROJ}.lora_A.default.weight").requires_grad_(False)
    flags, with_them = [p.requires_grad for p in model.parameters()], model(IDS)
    with pytest.raises(RuntimeError, match="inside"), without_adapters(model):
        raise RuntimeError("inside")
    assert [p.requires_grad for p in model.parameters()] == flags
    assert torch.equal(model(IDS), with_them)


def test_a_look_at_the_base_between_forward_and_backward_changes_no_gradient() -> None:
    def gradients(between: Callable[[HFBackbone], Any]) -> dict[str, Tensor]:
        model = moved()
        loss = model(IDS).logsumexp(-1).sum()
        between(model)
        loss.backward()
        return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}

    def look(model: HFBackbone) -> None:
        with without_adapters(model), torch.no_grad():
            model(IDS)

    undisturbed, disturbed = gradients(lambda model: None), gradients(look)
    assert undisturbed.keys() == disturbed.keys() != set()
    assert all(torch.equal(gradient, disturbed[name]) for name, gradient in undisturbed.items())


@torch.no_grad()
def test_folding_keeps_the_model_and_makes_it_its_own_base() -> None:
    model = moved()
    before = model(IDS)
    fold_adapters(model, seed=7)
    assert (model(IDS) - before).abs().max() <= 1e-5
    with without_adapters(model):
        assert torch.equal(model(IDS), after := model(IDS)) and (after - before).abs().max() <= 1e-5
    fresh = adapters(adapted(seed=7))
    assert all(torch.equal(tensor, fresh[name]) for name, tensor in adapters(model).items())


def test_folding_fresh_adapters_and_none_does_nothing() -> None:
    for model in (adapted(seed=7), plain()):
        before = copy.deepcopy(model).state_dict()
        fold_adapters(model, seed=7)
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


# ----------------------------------------------------------------------------------------- as a backbone like any other


@torch.no_grad()
def test_packed_rows_and_cached_steps_go_through_the_adapters() -> None:
    model, documents = moved(), random_documents((9, 1, 14), VOCABULARY, seed=3)
    batch = pack([documents], length=24)
    found = model.unembed(model.hidden(batch).hidden)[batch.is_token]
    alone = [model.model(torch.tensor([document])).logits[0] for document in documents]
    assert (found - torch.cat(alone)).abs().max() <= 1e-5
    cache = model.new_cache(3, 16)
    last = model.unembed(model.step(*left_pad(documents), cache).hidden[:, -1])
    assert (last - torch.stack([logits[-1] for logits in alone])).abs().max() <= 1e-5


@torch.no_grad()
def test_stored_names_are_those_of_the_plain_model() -> None:
    views, names = hf_model_views(moved()), hf_model_views(plain())
    assert list(views) == list(names)
    assert all(view.shape == names[name][0].shape for name, (view,) in views.items())
    assert not has_adapters(plain()) and has_adapters(moved())


def test_a_copy_is_a_model_of_its_own() -> None:
    model = moved()
    twin = copy.deepcopy(model)
    with torch.no_grad():
        expected = model(IDS)
        fold_adapters(move_adapters(twin), 0)
        assert torch.equal(model(IDS), expected)


def test_dropout_is_for_training() -> None:
    model = moved(settings=LoraSettings(2, 8, dropout=0.5))
    with torch.no_grad():
        assert torch.equal(model(IDS), model(IDS))
        assert not torch.equal(model.train()(IDS), model(IDS))


@torch.no_grad()
def test_bf16_is_near_fp32() -> None:
    exact, rough = moved(), moved(precision=PlainPrecision("bf16"))
    assert 1e-4 < (exact(IDS) - rough(IDS)).abs().max() / exact(IDS).std() < 0.2


def test_on_the_meta_device_it_has_shapes() -> None:
    with torch.device("meta"):
        model = adapted()
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert adapters(model).keys() == adapters(adapted()).keys()


# --------------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rank": 0}, r"model\.lora\.rank=0 is not allowed"),
        ({"rank": "8"}, r"model\.lora\.rank='8' is not allowed"),
        ({"alpha": 0}, r"model\.lora\.alpha=0 is not allowed"),
        ({"dropout": 1.0}, r"model\.lora\.dropout=1\.0 is not allowed: it must be below 1"),
        ({"dropout": -0.1}, r"model\.lora\.dropout=-0\.1 is not allowed"),
        ({"target_modules": "q_proj"}, r"model\.lora\.target_modules='q_proj' is not allowed: it must be a list"),
        ({"target_modules": []}, r"model\.lora\.target_modules=\[\] is not allowed"),
        ({"target_modules": ["q_proj", 3]}, r"model\.lora\.target_modules=\['q_proj', 3\] is not allowed"),
    ],
)
def test_bad_settings_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        LoraSettings(**{"rank": 2, "alpha": 4.0, **changes})


@pytest.mark.parametrize("target", ["qproj", "proj", "lm_head", "embed_tokens", "self_attn", "input_layernorm"])
def test_a_target_that_cannot_be_adapted_is_named(target: str) -> None:
    known = (
        "the linear layers that this model can adapt are down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"
    )
    with pytest.raises(InvalidInput, match=f"model.lora.target_modules='{target}' is not allowed: {known}"):
        adapted(settings=LoraSettings(2, 4, target_modules=["q_proj", target]), tie_word_embeddings=False)


def test_a_longer_name_narrows_the_target() -> None:
    model = adapted(settings=LoraSettings(2, 4, target_modules=["layers.1.mlp.up_proj"]))
    assert list(merged(model.model)) == ["model.layers.1.mlp.up_proj.weight"]


def test_missing_peft_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lora, "find_spec", lambda name: None)
    with pytest.raises(InvalidInput, match=r"peft is not installed here; pip install -e '\.\[lora\]'"):
        adapted()


def test_lora_without_its_target_is_refused() -> None:
    fields: Any = {"rank": 2, "alpha": 4}
    with pytest.raises(
        InvalidInput, match=r"model\.lora=.* is not allowed: it must be null, or name _target_: r1_light"
    ):
        HFModelConfig({"model_type": "qwen2", **DENSE}, fields)


def test_recompute_draws_the_same_dropout_again() -> None:
    def run(recompute: bool, seed: int = 0) -> list[Tensor]:
        model = move_adapters(adapted(settings=LoraSettings(2, 8, dropout=0.3))).train()
        if recompute:
            model.recompute_blocks()
        torch.manual_seed(seed)
        model.hidden(pack([random_documents((20, 9), VOCABULARY, seed=0)])).hidden.square().sum().backward()
        return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]

    kept, again, other = run(False), run(True), run(False, seed=5)
    assert len(kept) == 8 and all(torch.equal(a, b) for a, b in zip(kept, again, strict=True))
    assert not torch.equal(kept[0], other[0])
