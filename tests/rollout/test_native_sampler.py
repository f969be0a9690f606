"""The native sampler draws what the plain one draws, and leaves to the model itself what it does not know or cannot do."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import pytest
import torch

from r1_lightning.model.backbone import DeepSeekBackbone
from r1_lightning.model.precision import PlainPrecision
from r1_lightning.rollout import native_sampler
from r1_lightning.rollout.groups import RolloutConfig
from r1_lightning.rollout.native_build import NotBuilt
from r1_lightning.rollout.native_model import NativeModel
from r1_lightning.rollout.native_sampler import NativeSampler, disagreement, library, unknown, used_decoders
from r1_lightning.rollout.sampler import Eager, Sampler, SamplerSettings, SamplingConfig
from r1_lightning.types.tensors import Generation
from tests.model.tiny import backbone, random_documents, tiny
from tests.rollout.fakes import MarkovBackbone, keys_of

V = 40
PLAIN = {"n_expert_groups": 1, "n_limited_groups": 1, "vocab_size": V, "max_positions": 128}
PROMPTS = random_documents([3, 9, 17, 30], V, seed=0)
SHAPES: dict[str, dict[str, Any]] = {
    "as it is": {},
    "query without a rank, six heads": {"q_lora_rank": None, "n_heads": 6},
    "dense": {"n_dense_layers": 3, "n_layers": 3},
    "every layer a mixture of 16": {"n_dense_layers": 0, "n_routed_experts": 16, "n_activated_experts": 4},
    "tied, odd latent": {"tie_embeddings": True, "kv_lora_rank": 13},
    "several tiles of the vocabulary": {"vocab_size": 4500},
}


def model_of(**changes: Any) -> DeepSeekBackbone:
    return backbone(tiny(**{**PLAIN, **changes}))


def settings(seed: int = 0, ends: Sequence[int] = (4, 9), **changes: Any) -> SamplerSettings:
    sampling = SamplingConfig(**{"max_new_tokens": 24, **changes.pop("sampling", {})})
    return SamplerSettings(sampling, ends, 0, seed, **changes)


def drawn(kind: type[Sampler], model: Any, made: SamplerSettings, copies: int = 4) -> Generation:
    return kind(model, made)(PROMPTS, copies, keys_of(len(PROMPTS), copies))


def check_same(native: Generation, eager: Generation) -> None:
    """Equal tokens, ends and routes, and log-probs to within 1e-5."""
    for item in fields(Generation):
        ours, theirs = getattr(native, item.name), getattr(eager, item.name)
        if ours.is_floating_point():
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
        else:
            assert torch.equal(ours, theirs), item.name


@pytest.mark.parametrize("shape", SHAPES)
def test_the_tokens_of_the_plain_sampler(shape: str) -> None:
    model = model_of(**SHAPES[shape])
    for seed in range(4):
        made = settings(seed, record_routes=True, sampling={"sampling_temperature": 0.8 + 0.1 * seed})
        sampler = NativeSampler(model, made)
        check_same(sampler(PROMPTS, 4, keys_of(4, 4)), drawn(Sampler, model, made))
        assert sampler.decoder == "native"


def test_a_run_is_told_who_decoded_since_it_last_asked() -> None:
    used_decoders()
    model = model_of()
    for kind in (NativeSampler, NativeSampler, Sampler):
        drawn(kind, model, settings())
    drawn(NativeSampler, model_of(n_expert_groups=2, n_limited_groups=1), settings())
    assert used_decoders() == {"decoder": "native; by the model itself (experts are chosen by groups)"}
    assert used_decoders() == {}


@pytest.mark.parametrize("top_p", [0.95, 0.4])
def test_the_tokens_of_the_plain_sampler_with_a_nucleus(top_p: float) -> None:
    model = model_of()
    made = settings(3, sampling={"top_p": top_p})
    check_same(drawn(NativeSampler, model, made), drawn(Sampler, model, made))


@pytest.mark.slow
def test_the_tokens_of_the_plain_sampler_for_many_seeds() -> None:
    """Some 60,000 tokens. A uniform number may fall between two sums that differ by rounding: in one row of 4,000 at most."""
    model, other = model_of(), 0
    for seed in range(100):
        made = settings(seed)
        pair = [drawn(kind, model, made, copies=10).completion_ids for kind in (NativeSampler, Sampler)]
        width = min(x.shape[1] for x in pair)
        other += int((pair[0][:, :width] != pair[1][:, :width]).any(1).sum())
    assert other <= 1


def test_waves_limits_and_calls_without_a_prompt() -> None:
    """Waves that split a group, a limit of the call, progress, and no prompt at all."""
    model, told = model_of(), []
    made = settings(max_rows=6)
    sampler = NativeSampler(model, made)
    generation = sampler(PROMPTS, 4, keys_of(4, 4), 7, told.append)
    assert told == [6, 6, 4]
    check_same(generation, Sampler(model, made)(PROMPTS, 4, keys_of(4, 4), 7))
    assert sampler([], 4, keys_of(0, 4)).completion_ids.shape == (0, 0)


def test_new_weights_are_used_in_the_next_call() -> None:
    model, made = model_of(), settings()
    sampler = NativeSampler(model, made)
    sampler(PROMPTS, 4, keys_of(4, 4))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
        model.set_expert_bias(model.expert_bias() + torch.linspace(-0.5, 0.5, model.config.n_routed_experts))
    check_same(sampler(PROMPTS, 4, keys_of(4, 4)), drawn(Sampler, model, made))


def test_it_polls_before_every_token() -> None:
    """The prompts' wave once, then once per token."""
    sampler, polls = NativeSampler(model_of(), settings(ends=[-1])), []
    sampler.poll = lambda: polls.append(0)  # type: ignore[method-assign]
    sampler(PROMPTS, 2, keys_of(4, 2), 5)
    assert len(polls) == 1 + 5


class Nothing(torch.nn.Module):
    """No backbone of ours."""


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"n_expert_groups": 2, "n_limited_groups": 1}, "experts are chosen by groups"),
        ({"router_scoring": "softmax"}, "the router is V2's"),
        ({"attention_kind": "lightning", "softmax_attention_every": 2}, "a layer's attention is not MLA"),
    ],
)
def test_networks_that_it_does_not_know(change: dict[str, Any], why: str) -> None:
    assert unknown(model_of(**change)) == why


def test_weights_that_it_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    bf16 = DeepSeekBackbone(tiny(**PLAIN), PlainPrecision("bf16"))
    assert unknown(bf16) == "precision is bf16"
    assert unknown(DeepSeekBackbone(tiny(**PLAIN), PlainPrecision("bf16", decode="fp32"))) == ""
    assert unknown(MarkovBackbone(torch.zeros(3, 3))).startswith("it is made for our own network, not for Markov")
    assert unknown(model_of().to("meta")) == "the weights are not on the CPU"
    assert unknown(model_of().double()) == "a weight is not FP32"
    hooked = model_of()
    hooked.blocks[1].register_forward_hook(lambda *_: None)
    assert unknown(hooked) == "a layer has hooks"
    replaced = model_of()
    replaced.blocks[0].attention.out = torch.nn.Sequential(replaced.blocks[0].attention.out)
    assert unknown(replaced) == "a layer was replaced"
    monkeypatch.setattr(native_sampler, "MOST_PARAMETERS", 10)
    assert unknown(model_of()) == "it has more than 10 parameters"


def test_without_a_compiler_the_model_itself_decodes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def none() -> None:
        raise NotBuilt("there is no C++ compiler")

    monkeypatch.setattr(native_sampler, "library", none)
    monkeypatch.setattr(native_sampler, "_said", set())
    model, made = model_of(), settings()
    assert torch.equal(drawn(NativeSampler, model, made).policy_logprobs, drawn(Sampler, model, made).policy_logprobs)
    assert capsys.readouterr().err == "decoding on the CPU: by the model itself (there is no C++ compiler)\n"


def test_a_decoder_that_disagrees_is_not_used(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every weight of the copy that it decodes with is off by a thousandth, or NaN."""

    class Spoilt(NativeModel):
        factor = 1.001

        def __init__(self, library: Any, backbone: Any) -> None:
            other = copy.deepcopy(backbone)
            with torch.no_grad():
                other.blocks[0].attention.out.weight.mul_(self.factor)
            super().__init__(library, other)

    model, made = model_of(), settings()
    assert disagreement(model, NativeModel(library(), model)) < 1e-5
    for factor in (1.001, float("nan")):
        monkeypatch.setattr(Spoilt, "factor", factor)
        assert not disagreement(model, Spoilt(library(), model)) <= 1e-5
        monkeypatch.setattr(native_sampler, "NativeModel", Spoilt)
        monkeypatch.setattr(native_sampler, "AGREEMENT", {"fp32": (1e-5, 0.0, 0.0)})
        monkeypatch.setattr(native_sampler, "_said", set())
        assert torch.equal(
            drawn(NativeSampler, model, made).policy_logprobs, drawn(Sampler, model, made).policy_logprobs
        )
        assert capsys.readouterr().err.startswith("decoding on the CPU: by the model itself (log-probs differ by ")


def test_more_positions_than_there_are_angles_are_left_to_the_model() -> None:
    """It says what is wrong; the native decoder would read behind the table."""
    made = settings(ends=[-1], sampling={"max_new_tokens": 20})
    with pytest.raises(IndexError):
        drawn(NativeSampler, model_of(max_positions=40), made)


@pytest.mark.parametrize("top_p", [1.0, 0.8])
def test_beside_training_in_bf16_it_draws_what_fp32_draws(top_p: float) -> None:
    """To the bit, and what the model itself draws with `precision.decode=fp32`."""
    model, made = model_of(), settings(sampling={"top_p": top_p})
    mixed = DeepSeekBackbone(model.config, PlainPrecision("bf16", decode="fp32"))
    mixed.load_state_dict(model.state_dict())
    native, fp32 = drawn(NativeSampler, mixed, made), drawn(NativeSampler, model, made)
    assert all(torch.equal(getattr(native, item.name), getattr(fp32, item.name)) for item in fields(Generation))
    check_same(native, drawn(Sampler, mixed, made))


def test_it_is_the_default_and_a_configuration_names_the_other() -> None:
    assert RolloutConfig().sampler is NativeSampler
    assert type(Eager()(model_of(), settings())) is Sampler and Eager.records_routes
