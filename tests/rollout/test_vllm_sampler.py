"""vLLM's adapter against a fake of its published interface that runs `transformers`' DeepseekV3 (tests/rollout/fake_vllm.py).

Weights, names, temperature and top-p are right where the fake's log-probs, computed by other code from what was handed over,
agree with those that the trainer's backbone gives to the same tokens.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from r1_lightning.model.backbone import DeepSeekBackbone
from r1_lightning.model.hf_model import HFBackbone, HFModelConfig
from r1_lightning.model.precision import PlainPrecision
from r1_lightning.rollout.collate import collate
from r1_lightning.rollout.engine_model import engine_model, made
from r1_lightning.rollout.generations import mismatch
from r1_lightning.rollout.keyed_random import keyed_seeds
from r1_lightning.rollout.sampler import SamplerSettings, SamplingConfig
from r1_lightning.rollout.scoring import score_completions
from r1_lightning.rollout.vllm_sampler import (
    VLLM,
    HandOverFailed,
    VLLMSampler,
    generation_of_outputs,
    policy_logprobs,
    tolerance_of,
)
from r1_lightning.rollout.vllm_worker import tensor_digest, weights_digest
from r1_lightning.rollout.weight_stream import Tensors
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.tensors import Generation
from tests.model.tiny import backbone, pack, random_documents, randomise, tiny
from tests.rollout import fake_vllm
from tests.rollout.fake_vllm import CompletionOutput, Logprob, RequestOutput
from tests.rollout.fakes import MarkovBackbone, generation_of, keys_of
from tests.support import miniature
from tests.support.hf_folders import DENSE
from tests.support.miniature import CharTokenizer, Miniature, Sums

MODEL = tiny(vocab_size=9)
EOS, PAD, SEED, LIMIT = 7, 8, 5, 6
QWEN2 = {"model_type": "qwen2", **DENSE, "vocab_size": 9, "eos_token_id": EOS, "tie_word_embeddings": True}
PROMPTS = random_documents([4, 1, 6], MODEL.vocab_size, seed=3)
KEYS = keys_of(3, 4)


@pytest.fixture
def llm(monkeypatch: pytest.MonkeyPatch) -> type[fake_vllm.LLM]:
    return fake_vllm.install(monkeypatch)


def sampler_of(model: DeepSeekBackbone, **sampling: Any) -> VLLMSampler:
    config = SamplingConfig(**{"max_new_tokens": LIMIT, **sampling})
    return VLLM()(model, SamplerSettings(config, [EOS], PAD, SEED, max_rows=5))


# ----------------------------------------------------------------------------------------------------- from end to end


@torch.no_grad()
def plain_logprobs(model: DeepSeekBackbone, prompt: Sequence[int], ids: Sequence[int], temperature: float) -> Tensor:
    """The whole distributions (tokens x V) that predict a completion, from its text by itself."""
    hidden = model.hidden(pack([[[*prompt, *ids]]]), with_mtp=False).hidden[0]
    return (model.unembed(hidden[len(prompt) - 1 : -1]) / temperature).log_softmax(-1)


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 0.8)])
def test_both_log_probs_are_those_of_a_plain_forward(
    llm: type[fake_vllm.LLM], temperature: float, top_p: float
) -> None:
    """The policy's by our backbone; vLLM's, of the nucleus renormalised, by the model that the weights were handed to."""
    model = backbone(MODEL)
    drawn = sampler_of(model, sampling_temperature=temperature, top_p=top_p)(PROMPTS, 4, KEYS)
    lengths = drawn.completion_mask.sum(1).tolist()
    assert len(set(lengths)) > 1 and bool(drawn.finished.any()) and not bool(drawn.finished.all())
    for row, length in enumerate(lengths):
        ids = drawn.completion_ids[row, :length]
        expected = plain_logprobs(model, PROMPTS[row // 4], ids.tolist(), temperature)
        policy = expected.gather(1, ids[:, None]).squeeze(1)
        torch.testing.assert_close(drawn.policy_logprobs[row, :length], policy, atol=1e-4, rtol=0)
        ordered = expected.exp().sort(dim=-1, descending=True)[0]
        mass = (ordered * (ordered.cumsum(-1) - ordered < top_p)).sum(-1)
        torch.testing.assert_close(drawn.sampler_logprobs[row, :length], policy - mass.log(), atol=1e-4, rtol=0)
    padding = ~drawn.completion_mask
    assert bool((drawn.completion_ids[padding] == PAD).all())
    assert not drawn.policy_logprobs[padding].any() and not drawn.sampler_logprobs[padding].any()
    assert drawn.routes.numel() == drawn.prompt_routes.numel() == 0
    assert not drawn.policy_logprobs.requires_grad


@pytest.mark.parametrize("kind", ["moonlight", "qwen2"])
def test_other_models_are_handed_over_as_they_are(llm: type[fake_vllm.LLM], kind: str) -> None:
    """Moonlight's form has an eps of 1e-5 and no query compression; each is proven in FP32, before and after an update."""
    moonlight = {"norm_eps": 1e-5, "q_lora_rank": None, "mtp_depth": 0}
    model: Any = (
        backbone(tiny(vocab_size=9, **moonlight)) if kind == "moonlight" else HFBackbone(HFModelConfig(QWEN2), seed=3)
    )
    of_run = SamplerSettings(SamplingConfig(max_new_tokens=LIMIT), [EOS], PAD, SEED)
    sampler = VLLM(dtype="float32")(model, of_run)
    sampler(PROMPTS, 4, KEYS)
    randomise(model, seed=99)
    drawn = sampler(PROMPTS, 4, KEYS)
    assert sampler.is_proven and 0 < mismatch(drawn)[1] < 1e-4
    torch.testing.assert_close(drawn.policy_logprobs, drawn.sampler_logprobs, atol=1e-4, rtol=0)


def test_rows_come_in_the_order_of_prompts_and_copies(llm: type[fake_vllm.LLM]) -> None:
    sampler_of(backbone(MODEL))(PROMPTS, 2, keys_of(3, 2), max_new_tokens=1)
    sent = [prompt["prompt_token_ids"] for prompt, _ in llm.started[0].requests]
    assert sent == [PROMPTS[0], PROMPTS[0], PROMPTS[1], PROMPTS[1], PROMPTS[2], PROMPTS[2]]


def test_each_rows_settings(llm: type[fake_vllm.LLM]) -> None:
    sampler_of(backbone(MODEL), sampling_temperature=0.7, top_p=0.9)(PROMPTS, 4, KEYS, max_new_tokens=2)
    proof, found = [params for _, params in llm.started[0].requests][:3], [p for _, p in llm.started[0].requests][3:]
    assert [params.top_p for params in proof] == [1.0] * 3
    assert [params.seed for params in found] == keyed_seeds(SEED, KEYS)
    expected = fake_vllm.SamplingParams(1, 0.7, 0.9, 0, 0.0, None, [EOS], False, 2, 0, False)
    assert all(dataclasses.replace(params, seed=None) == expected for params in found)


def test_the_limit_is_the_configurations_unless_it_is_given(llm: type[fake_vllm.LLM]) -> None:
    sampler = sampler_of(backbone(MODEL), max_new_tokens=3)
    sampler(PROMPTS[:1], 1, keys_of(1, 1))
    sampler(PROMPTS[:1], 1, keys_of(1, 1), 2)
    assert [params.max_tokens for _, params in llm.started[0].requests] == [3, 2]


def test_a_rows_draws_depend_on_its_key_alone(llm: type[fake_vllm.LLM]) -> None:
    sampler = sampler_of(backbone(MODEL))
    together = sampler(PROMPTS, 4, KEYS)
    alone = sampler(PROMPTS[1:2], 4, KEYS[4:8])
    length = alone.completion_ids.shape[1]
    assert torch.equal(alone.completion_ids, together.completion_ids[4:8, :length])
    again = sampler(PROMPTS, 4, KEYS)
    assert torch.equal(again.completion_ids, together.completion_ids)
    other = sampler(PROMPTS, 4, keys_of(3, 4, rollout=1))
    assert other.completion_ids.tolist() != together.completion_ids.tolist()


@pytest.mark.parametrize("training", [True, False])
def test_the_backbones_mode_is_restored(llm: type[fake_vllm.LLM], training: bool) -> None:
    model = backbone(MODEL).train(training)
    sampler_of(model)(PROMPTS, 1, keys_of(3, 1))
    assert model.training is training


def test_its_rollouts_train_as_any_others(llm: type[fake_vllm.LLM]) -> None:
    """Judged, dealt and packed; the old log-probs are those of the training forward, as the self-check demands."""
    mini = Miniature()
    config = mini.rollout
    sampler = VLLM()(mini.model, config.sampler_settings(CharTokenizer(), mini.seed))
    rollout = mini.maker(sampler)(0, 0, [Sums().train_problem(0, index) for index in range(3)])
    rows = torch.arange(rollout.rewards.numel())
    batch = collate(rollout, rows, config.row_tokens, miniature.PAD)
    with torch.no_grad():
        scored = score_completions(mini.model.train(), batch, config.sampling_temperature)
    torch.testing.assert_close(batch.old_logprobs[batch.completion_mask], scored.logprobs, atol=1e-4, rtol=0)
    torch.testing.assert_close(batch.sampler_logprobs[batch.completion_mask], scored.logprobs, atol=1e-4, rtol=0)


# ------------------------------------------------------------------------------------------------------------- weights


class Engine:
    """Draws EOS at once in every row; keeps the weights it is given, or answers as `answer` says."""

    def __init__(self, answer: Sequence[str] | None = None) -> None:
        self.answer = answer
        self.loads: list[dict[str, Tensor]] = []
        self.logprob = -1.0

    def load_weights(self, tensors: Tensors) -> Sequence[str]:
        self.loads.append({name: tensor.clone() for name, tensor in made(tensors).items()})
        if self.answer is not None:
            return self.answer
        return [
            weights_digest({name: tensor_digest(name, tensor) for name, tensor in self.loads[-1].items()})
        ] * 2  # workers

    def generate(self, prompts: Sequence[Sequence[int]], settings: Sequence[Mapping[str, Any]]) -> list[RequestOutput]:
        return [output([EOS], "stop", logprobs=[{EOS: Logprob(self.logprob)}]) for _ in prompts]


def over(engine: Engine, model: DeepSeekBackbone, top_p: float = 1.0) -> VLLMSampler:
    """A sampler to whose policy every token has a log-prob of -1; up to 0.1 nats are tolerated."""

    def scored(prompts: object, generation: Generation) -> Tensor:
        return -torch.ones_like(generation.sampler_logprobs) * generation.completion_mask

    of_run = SamplerSettings(SamplingConfig(top_p=top_p), [EOS], PAD, SEED)
    return VLLMSampler(engine, lambda: engine_model(model, [EOS], PAD).tensors(), scored, of_run, tolerance=0.1)


def draw(sampler: VLLMSampler) -> Generation:
    return sampler([[1]], 1, keys_of(1, 1))


def test_weights_are_handed_over_when_they_have_changed_and_only_then() -> None:
    """A change that no counter of versions sees, one bit of one expert's bias, included."""
    engine, model = Engine(), backbone(MODEL)
    sampler = over(engine, model)
    draw(sampler), draw(sampler)
    assert len(engine.loads) == 1
    model.blocks[1].feed_forward.router.expert_bias.data.view(torch.int32)[0] ^= 1
    draw(sampler), draw(sampler)
    assert len(engine.loads) == 2
    name = "model.layers.1.mlp.gate.e_score_correction_bias"
    first, second = engine.loads
    assert [changed for changed in first if not torch.equal(first[changed], second[changed])] == [name]


def test_the_mtp_modules_stay_at_home() -> None:
    model = backbone(MODEL)
    assert any(name.startswith("mtp_modules.") for name in model.state_dict())
    engine = Engine()
    sampler = over(engine, model)
    draw(sampler)
    assert not [name for name in engine.loads[0] if "layers.2" in name or "mtp" in name]
    randomise(model.mtp_modules, seed=77)
    draw(sampler)
    assert len(engine.loads) == 1


def test_an_engine_with_other_weights_is_refused_until_it_has_the_right_ones() -> None:
    model = backbone(MODEL)
    engine = Engine()
    sampler = over(engine, model)
    draw(sampler)
    stale = sampler.handed_over
    randomise(model, seed=99)
    assert stale is not None
    for answer in ([stale], [], [stale, "f" * 64]):
        engine.answer = answer
        with pytest.raises(
            HandOverFailed, match=r"the engine holds other weights than the policy: checksum .*, not [0-9a-f]{64}$"
        ):
            draw(sampler)
    engine.answer = None
    draw(sampler)
    assert sampler.handed_over not in (None, stale) and len(engine.loads) == 5


def test_after_a_failed_hand_over_nothing_is_taken_for_granted() -> None:
    """The engine may hold half of the new weights: those it had before are handed over again, too."""
    model, engine = backbone(MODEL), Engine()
    sampler = over(engine, model)
    draw(sampler)
    kept = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    randomise(model, seed=99)
    engine.answer = ["0" * 64]
    with pytest.raises(HandOverFailed, match="other weights than the policy"):
        draw(sampler)
    model.load_state_dict(kept)
    engine.answer = None
    draw(sampler)
    assert len(engine.loads) == 3


def test_one_worker_of_two_with_other_weights_is_enough() -> None:
    model, engine = backbone(MODEL), Engine()
    sampler = over(engine, model)
    draw(sampler)
    engine.answer = [str(sampler.handed_over), "0" * 64]
    sampler.handed_over = None
    with pytest.raises(HandOverFailed, match="other weights than the policy"):
        draw(sampler)


def test_after_an_update_the_completions_are_the_new_policys(llm: type[fake_vllm.LLM]) -> None:
    model = backbone(MODEL)
    sampler = sampler_of(model)
    before = sampler(PROMPTS, 4, KEYS)
    randomise(model, seed=99)
    after = sampler(PROMPTS, 4, KEYS)
    assert len(llm.started) == 1 and llm.started[0].loads == 2
    torch.testing.assert_close(after.sampler_logprobs, after.policy_logprobs, atol=1e-4, rtol=0)
    assert float((after.policy_logprobs[:, 0] - before.policy_logprobs[:, 0]).abs().max()) > 0.1


# ------------------------------------------------------------------------------------------- proof of every hand-over


def test_an_engine_that_computes_another_model_ends_the_run_in_one_line() -> None:
    """-1.2 where the policy has -1: 0.2 nats, above 0.1. The checksum is right all the same."""
    engine = Engine()
    engine.logprob = -1.2
    with pytest.raises(HandOverFailed) as caught:
        draw(over(engine, backbone(MODEL)))
    assert str(caught.value) == (
        "rollout=vllm is not allowed: after the hand-over of weights its log-probs differ from the policy's by 2.0e-01 nats on "
        "average (largest 2.0e-01), more than 1e-01: vLLM computes another model"
    )
    engine.logprob = float("nan")
    with pytest.raises(HandOverFailed):
        draw(over(engine, backbone(MODEL)))


def test_every_hand_over_is_proven_and_nothing_between() -> None:
    engine, model = Engine(), backbone(MODEL)
    sampler = over(engine, model)
    engine.logprob = -1.09  # within the tolerance
    draw(sampler)
    engine.logprob = -3.0  # the same weights: not looked at again
    assert mismatch(draw(sampler)) == pytest.approx((2.0, 2.0))
    randomise(model, seed=99)
    for _ in range(2):  # it does not become right by being asked again
        with pytest.raises(HandOverFailed):
            draw(sampler)
    engine.logprob = -1.0
    draw(sampler)
    assert sampler.is_proven and len(engine.loads) == 2


def test_without_a_prompt_the_proof_waits() -> None:
    engine = Engine()
    sampler = over(engine, backbone(MODEL))
    engine.logprob = -3.0
    assert sampler([], 2, keys_of(0, 2)).completion_ids.numel() == 0
    with pytest.raises(HandOverFailed):
        draw(sampler)


def test_with_top_p_a_few_completions_are_drawn_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, asked = Engine(), []
    plain = engine.generate

    def generate(prompts: Sequence[Sequence[int]], settings: Sequence[Mapping[str, Any]]) -> list[RequestOutput]:
        asked.append((list(prompts), [(row["top_p"], row["max_tokens"]) for row in settings]))
        return plain(prompts, settings)

    monkeypatch.setattr(engine, "generate", generate)
    sampler = over(engine, backbone(MODEL), top_p=0.5)
    prompts = [[number] for number in range(20)]
    sampler(prompts, 2, keys_of(20, 2))
    sampler(prompts, 2, keys_of(20, 2))
    proof, first, second = asked
    assert proof == (prompts[:16], [(1.0, 32)] * 16)
    assert first == second == ([prompt for prompt in prompts for _ in range(2)], [(0.5, 64)] * 40)


def test_experts_that_vllm_would_spoil_are_noticed(llm: type[fake_vllm.LLM], monkeypatch: pytest.MonkeyPatch) -> None:
    """What vLLM 0.32 does on a CPU without our help: the checksum is right, and every expert computes something else."""
    monkeypatch.setattr("r1_lightning.rollout.vllm_worker.forget_packed_experts", lambda model: 0)
    with pytest.raises(HandOverFailed, match="vLLM computes another model"):
        VLLM(dtype="float32")(backbone(MODEL), SamplerSettings(SamplingConfig(max_new_tokens=4), [EOS], PAD, SEED))(
            PROMPTS, 4, KEYS
        )


def test_tolerances_are_those_of_the_coarser_type() -> None:
    model = backbone(MODEL)
    assert tolerance_of("float32", model) == 1e-4
    assert tolerance_of("bfloat16", model) == tolerance_of("float16", model) == 0.08
    assert tolerance_of("float32", DeepSeekBackbone(MODEL, PlainPrecision("bf16"))) == 0.08


# ----------------------------------------------------------------------------------------------------- vLLM's outputs


def output(ids: Sequence[int], reason: str, stop: int | None = None, **changes: Any) -> RequestOutput:
    """Token t has log-prob -(t + 1), another token, more likely, stands before it."""
    logprobs = [{token + 1: Logprob(-0.1, 1), token: Logprob(-(t + 1.0), 2)} for t, token in enumerate(ids)]
    fields = {"token_ids": tuple(ids), "cumulative_logprob": None, "logprobs": logprobs, "finish_reason": reason}
    completion = CompletionOutput(**{"index": 0, "text": "", "stop_reason": stop, **fields, **changes})
    return RequestOutput("0", [1], [completion])


def test_outputs_by_hand() -> None:
    """EOS ends rows 0 and 2, whether vLLM counts it as its own EOS (no stop_reason) or as ours; the limit cut row 1."""
    drawn = generation_of_outputs(
        [output([1, EOS], "stop"), output([2, 3, 4], "length"), output([EOS], "stop", EOS)], [EOS], PAD
    )
    assert drawn.completion_ids.tolist() == [[1, EOS, PAD], [2, 3, 4], [EOS, PAD, PAD]]
    assert drawn.completion_mask.tolist() == [[True, True, False], [True, True, True], [True, False, False]]
    assert drawn.sampler_logprobs.tolist() == [[-1.0, -2.0, 0.0], [-1.0, -2.0, -3.0], [-1.0, 0.0, 0.0]]
    assert drawn.finished.tolist() == [True, False, True]
    assert not drawn.policy_logprobs.any() and drawn.policy_logprobs.shape == (3, 3)
    assert (
        drawn.completion_ids.dtype == torch.long and drawn.completion_mask.dtype == drawn.finished.dtype == torch.bool
    )


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (output([2, 3], "stop"), "ended row 1 for 'stop' with token 3, and EOS is 7"),  # the end left out
        (output([2, EOS], "length"), "ended row 1 for 'length' with token 7"),
        (output([2, 3], "abort"), "ended row 1 for 'abort'"),
        (output([], "length"), "ended row 1 for 'length' with token None"),
        (output([EOS, 3, EOS], "stop"), "went on after EOS in row 1"),
        (output([2, 3], "length", logprobs=None), "no log-prob for each of the 2 tokens of row 1"),
        (output([2, 3], "length", logprobs=[{2: Logprob(-1.0)}]), "no log-prob for each of the 2 tokens of row 1"),
        (output([2, 3], "length", logprobs=[{2: Logprob(-1.0)}, {4: Logprob(-1.0)}]), "no log-prob for each"),
    ],
)
def test_what_vllm_should_not_return_is_refused(bad: RequestOutput, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        generation_of_outputs([output([1, EOS], "stop"), bad], [EOS], PAD)


def test_a_missing_row_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine()
    monkeypatch.setattr(engine, "generate", lambda prompts, settings: [output([EOS], "stop")])
    with pytest.raises(RuntimeError, match="vLLM returned 1 completions for 6 rows"):
        over(engine, backbone(MODEL))([[1], [2]], 3, keys_of(2, 3))


# -------------------------------------------------------------------------------------------------- the trainer's scores


def test_scores_by_hand() -> None:
    """Two tokens; after 0 they are equally likely, after 1 token 1 has 3/4: log 0.5 = -0.6931, log 0.75 = -0.2877."""
    model = MarkovBackbone(torch.tensor([[0.0, 0.0], [0.0, 1.0986123]]))
    scores = policy_logprobs(model, 1.0, 0, [[0], [1]], generation_of([[1, 1], [0], [1], [1, 0]], [True] * 4))
    half, most, least = -0.6931472, -0.2876821, -1.3862944
    torch.testing.assert_close(scores, torch.tensor([[half, most], [half, 0.0], [most, 0.0], [most, least]]))


@pytest.mark.parametrize("scored_tokens", [1, 25, 60, 10_000])
def test_scores_do_not_depend_on_how_many_are_scored_at_once(scored_tokens: int) -> None:
    model, temperature = backbone(MODEL), 0.7
    completions = random_documents([3, 7, 1, 6, 2, 5], MODEL.vocab_size, seed=2)
    drawn = generation_of(completions, [True] * 6)
    scores = policy_logprobs(model, temperature, PAD, PROMPTS, drawn, scored_tokens)
    assert scores.shape == drawn.completion_ids.shape and not scores[~drawn.completion_mask].any()
    for row, ids in enumerate(completions):
        whole = plain_logprobs(model, PROMPTS[row // 2], ids, temperature)
        expected = whole[torch.arange(len(ids)), torch.tensor(ids)]
        torch.testing.assert_close(scores[row, : len(ids)], expected, atol=1e-5, rtol=0)


# ------------------------------------------------------------------------------------------------------------- settings


def test_settings_reach_the_engine(llm: type[fake_vllm.LLM]) -> None:
    maker = VLLM(dtype="float32", gpu_memory_utilization=0.3)
    of_run = SamplerSettings(SamplingConfig(max_new_tokens=1), [EOS], PAD, SEED, max_rows=11)
    maker(backbone(MODEL), of_run)(PROMPTS, 1, keys_of(3, 1))
    settings = llm.started[0].settings
    assert (settings["dtype"], settings["gpu_memory_utilization"], settings["max_num_seqs"]) == ("float32", 0.3, 11)


@pytest.mark.parametrize(
    ("field", "value"),
    [("dtype", "fp8"), ("gpu_memory_utilization", 0.0), ("gpu_memory_utilization", 1.1)],
)
def test_bad_settings_are_named(field: str, value: Any) -> None:
    with pytest.raises(InvalidInput, match=rf"rollout\.sampler\.{field}={value!r} is not allowed"):
        VLLM(**{field: value})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"record_routes": True}, r"stage\.router='replay' is not allowed: vLLM's choice of experts is not recorded"),
        ({"sampling": SamplingConfig(2.5)}, r"rollout\.sampling_temperature=2\.5 is not allowed: .* at most 2\.0"),
        ({"sampling": SamplingConfig(0.005)}, r"rollout\.sampling_temperature=0\.005 is not allowed"),
        ({"backbone": MarkovBackbone(torch.zeros(2, 2))}, "model=MarkovBackbone is not allowed: no engine reads it"),
    ],
)
def test_what_vllm_cannot_do_is_refused_at_construction(changes: dict[str, Any], message: str) -> None:
    policy = changes.pop("backbone", None) or backbone(MODEL)
    given = {"sampling": SamplingConfig(), "eos_ids": [EOS], "pad_id": PAD, "seed": SEED}
    with pytest.raises(InvalidInput, match=message):
        VLLM()(policy, SamplerSettings(**{**given, **changes}))
