"""The sampler against a loop over one row at a time, against plain forwards, and against everything that may not matter.

With a `MarkovBackbone` every probability is known, so a reference in plain NumPy can say token by token what has to be drawn.
With a real backbone (latent cache, experts) the stored log-probs are compared with a forward over each text by itself.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from r1_lightning.model import kv_cache
from r1_lightning.model.backbone import DeepSeekBackbone
from r1_lightning.model.hf_model import HFBackbone, HFModelConfig
from r1_lightning.model.precision import PlainPrecision
from r1_lightning.rollout import sampler as sampler_module
from r1_lightning.rollout.drawing import nucleus
from r1_lightning.rollout.keyed_random import keyed_uniforms
from r1_lightning.rollout.sampler import (
    TOKENS_PER_LOOK,
    Sampler,
    SamplerSettings,
    SamplingConfig,
    device_of,
    left_padded,
    tokens_per_look,
)
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.tensors import Generation
from tests.model.tiny import backbone, pack, random_documents, randomise, tiny
from tests.rollout.fakes import MarkovBackbone, keys_of
from tests.support.commands import ROOT
from tests.support.fake_cuda.library import start
from tests.support.fake_cuda.records import WAITS
from tests.support.hf_folders import DENSE
from tests.support.memory import LiveTensors
from tests.support.miniature import Miniature, rollout_config

VOCABULARY, EOS, PAD = 6, 4, 5
SETTINGS = [(1.0, 1.0), (0.7, 0.8)]


def markov(seed: int = 0) -> MarkovBackbone:
    """Six tokens whose likelihoods differ by a factor of some tens; the end comes after about six tokens."""
    return MarkovBackbone(torch.randn(VOCABULARY, VOCABULARY, generator=torch.Generator().manual_seed(seed)))


def sampler_of(model: torch.nn.Module, seed: int = 7, **changes: object) -> Sampler:
    config = SamplingConfig(
        **{k: changes.pop(k) for k in ("sampling_temperature", "top_p", "max_new_tokens") if k in changes}
    )
    ends = changes.pop("eos_id", EOS)
    ids = ([ends] if isinstance(ends, int) else ends, changes.pop("pad_id", PAD))
    return Sampler(model, SamplerSettings(config, *ids, seed, **changes))


def check_same(a: Generation, b: Generation, atol: float = 0.0) -> None:
    for field in dataclasses.fields(Generation):
        torch.testing.assert_close(getattr(a, field.name), getattr(b, field.name), atol=atol, rtol=0)


def rows_of(generation: Generation, rows: Sequence[int] | slice) -> Generation:
    """Some rows of a generation, cut to the longest of them as a sampler would."""
    mask = generation.completion_mask[rows]
    used = int(mask.any(0).sum())
    columns = ("completion_ids", "completion_mask", "policy_logprobs", "sampler_logprobs")
    return Generation(
        *(getattr(generation, name)[rows][:, :used] for name in columns),
        generation.finished[rows],
        generation.routes[:, rows, :used] if generation.routes.numel() else generation.routes,
        generation.prompt_routes[:, rows] if generation.prompt_routes.numel() else generation.prompt_routes,
    )


# ------------------------------------------------------------------------------------------------------------ several ends


@pytest.mark.parametrize("ends", [(4, 2), (2, 4), (4, 0, 2), (4,), (4, 2, 1, 3)])
def test_each_of_several_ends_ends_a_row(ends: tuple[int, ...]) -> None:
    """The same draws as without them, up to the first end: that token is kept, and the row has finished."""
    keys, prompts = keys_of(4, 8), [[1], [3], [0, 1], [5, 3]]
    free = sampler_of(markov(), eos_id=-1, max_new_tokens=12)(prompts, 8, keys)
    drawn = sampler_of(markov(), eos_id=ends, max_new_tokens=12)(prompts, 8, keys)
    seen = set()
    for row, whole in enumerate(free.completion_ids.tolist()):
        place = next((number for number, token in enumerate(whole) if token in ends), None)
        kept = whole if place is None else whole[: place + 1]
        assert drawn.completion_ids[row][drawn.completion_mask[row]].tolist() == kept
        assert bool(drawn.finished[row]) == (place is not None)
        seen.add(kept[-1])
    assert seen >= set(ends)


def test_prompts_are_padded_on_the_left() -> None:
    token_ids, is_token = left_padded([[1, 2, 3], [4]], pad_id=9)
    assert token_ids.tolist() == [[1, 2, 3], [9, 9, 4]]
    assert is_token.tolist() == [[True, True, True], [False, False, True]]


# -------------------------------------------------------------------------------------------- what is drawn, token by token


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def reference_row(
    table: np.ndarray, last: int, uniforms: Sequence[float], temperature: float, top_p: float
) -> tuple[list[int], list[float], list[float], bool]:
    """One completion by the definition: tokens, policy log-probs, sampler log-probs, and whether it ended."""
    tokens, policy, drawn_from = [], [], []
    for uniform in uniforms:
        probabilities = softmax(table[last].astype(np.float64) / temperature)
        kept, mass = np.zeros_like(probabilities), 0.0
        for token in sorted(range(len(probabilities)), key=lambda i: -probabilities[i]):
            if mass < top_p:
                kept[token] = probabilities[token]
            mass += probabilities[token]
        kept /= kept.sum()
        last = next(token for token, total in enumerate(np.cumsum(kept)) if total > uniform)
        tokens.append(last)
        policy.append(float(np.log(probabilities[last])))
        drawn_from.append(float(np.log(kept[last])))
        if last == EOS:
            return tokens, policy, drawn_from, True
    return tokens, policy, drawn_from, False


@pytest.mark.parametrize(("temperature", "top_p"), [*SETTINGS, (1.0, 0.5), (2.0, 1.0)])
def test_every_token_and_log_prob_is_that_of_the_definition(temperature: float, top_p: float) -> None:
    model, keys, limit = markov(), keys_of(prompts=4, copies=25), 10
    prompts = [[0], [1, 2], [3, 3, 0], [2]]
    sampler = sampler_of(model, sampling_temperature=temperature, top_p=top_p, max_new_tokens=limit)
    drawn = sampler(prompts, 25, keys)
    uniforms = keyed_uniforms(7, keys, limit).double().numpy()
    table = model.logits.detach().numpy()
    lengths, ended = set(), set()
    for row in range(100):
        tokens, policy, drawn_from, finished = reference_row(
            table, prompts[row // 25][-1], uniforms[row], temperature, top_p
        )
        n = len(tokens)
        assert drawn.completion_ids[row, :n].tolist() == tokens
        assert drawn.completion_mask[row].tolist() == [column < n for column in range(drawn.completion_mask.shape[1])]
        np.testing.assert_allclose(drawn.policy_logprobs[row, :n], policy, atol=1e-5)
        np.testing.assert_allclose(drawn.sampler_logprobs[row, :n], drawn_from, atol=1e-5)
        assert bool(drawn.finished[row]) == finished
        lengths.add(n)
        ended.add(finished)
    assert ended == {True, False} and len(lengths) >= 7  # the cases were there


@pytest.mark.parametrize(("temperature", "top_p"), SETTINGS)
def test_first_tokens_are_distributed_as_the_softmax_says(temperature: float, top_p: float) -> None:
    """20,000 draws; chi-square with 5 degrees of freedom is above 20.5 once in 1,000."""
    model, n = markov(), 20_000
    sampler = sampler_of(model, sampling_temperature=temperature, top_p=top_p, max_new_tokens=1, max_rows=n)
    drawn = sampler([[2]], n, keys_of(1, n)).completion_ids[:, 0]
    expected = (model.logits.detach()[2] / temperature).softmax(-1)
    expected = n * (nucleus(expected[None], top_p)[0] if top_p < 1 else expected)
    counts = torch.bincount(drawn, minlength=VOCABULARY)
    possible = expected > 0
    assert int(counts[~possible].sum()) == 0
    assert float(((counts - expected)[possible] ** 2 / expected[possible]).sum()) < 20.5


def test_later_tokens_are_distributed_as_the_softmax_says() -> None:
    """Steps from token a to token b over all positions; five lines of six, 25 degrees of freedom: above 52.6 once in 1,000."""
    model = markov()
    drawn = sampler_of(model, max_new_tokens=8, max_rows=4_000)([[0]], 4_000, keys_of(1, 4_000))
    counts = torch.zeros(VOCABULARY, VOCABULARY)
    both = drawn.completion_mask[:, 1:]
    counts.index_put_(
        (drawn.completion_ids[:, :-1][both], drawn.completion_ids[:, 1:][both]), torch.ones(int(both.sum())), True
    )
    assert float(counts[EOS].sum()) == 0  # nothing follows the end
    counts, chances = counts[counts.sum(1) > 0], model.logits.detach().softmax(-1)[counts.sum(1) > 0]
    expected = counts.sum(1, keepdim=True) * chances
    assert len(counts) == 5
    assert float(((counts - expected) ** 2 / expected).sum()) < 52.6


def test_the_end_is_part_of_a_completion_and_its_end() -> None:
    drawn = sampler_of(markov(), max_new_tokens=10)([[0]], 200, keys_of(1, 200))
    ends = (drawn.completion_ids == EOS) & drawn.completion_mask
    lengths = drawn.completion_mask.sum(1)
    assert torch.equal(ends.any(1), drawn.finished)
    assert torch.equal(ends.sum(1), drawn.finished.long())
    last = drawn.completion_ids.gather(1, (lengths - 1)[:, None]).squeeze(1)
    assert torch.equal(last == EOS, drawn.finished)
    assert set(lengths[~drawn.finished].tolist()) == {10}
    padding = ~drawn.completion_mask
    assert set(drawn.completion_ids[padding].tolist()) == {PAD}
    assert float(drawn.policy_logprobs[padding].abs().sum() + drawn.sampler_logprobs[padding].abs().sum()) == 0.0


def test_only_the_columns_in_use_are_returned() -> None:
    table = torch.full((VOCABULARY, VOCABULARY), -1e9)
    table[0, 1] = table[1, EOS] = 0.0  # 0, then 1, then the end
    drawn = sampler_of(MarkovBackbone(table), max_new_tokens=50)([[0]], 3, keys_of(1, 3))
    assert drawn.completion_ids.tolist() == [[1, EOS]] * 3


def test_without_top_p_both_log_probs_are_the_same() -> None:
    plain = sampler_of(markov(), max_new_tokens=6)([[0]], 50, keys_of(1, 50))
    assert torch.equal(plain.policy_logprobs, plain.sampler_logprobs)
    narrow = sampler_of(markov(), max_new_tokens=6, top_p=0.6)([[0]], 50, keys_of(1, 50))
    gain = (narrow.sampler_logprobs - narrow.policy_logprobs)[narrow.completion_mask]
    assert gain.min() > 0.0 and gain.max() < -np.log(0.6) + 1e-5  # a kept set has a mass of 0.6 to 1


# -------------------------------------------------------------------------------------------------- what may not matter


@pytest.mark.parametrize("max_rows", [1, 7, 12, 13, 36, 1_000])
def test_max_rows_changes_nothing_and_is_kept(max_rows: int) -> None:
    """Also where a group is larger than a wave, or is divided between two."""
    prompts, keys = [[0], [1, 2], [3]], keys_of(3, 12)
    expected = sampler_of(markov())(prompts, 12, keys)
    model, done = markov(), []
    drawn = sampler_of(model, max_rows=max_rows)(prompts, 12, keys, progress=done.append)
    check_same(drawn, expected)
    assert max(model.decoded) <= max_rows
    assert sum(done) == 36 and max(done) <= max_rows


@pytest.mark.parametrize("share", [0.0, 0.125, 0.5, 2.0])
def test_dropping_ended_rows_changes_nothing(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = sampler_of(markov(), max_new_tokens=12)([[0], [1]], 40, keys_of(2, 40))
    monkeypatch.setattr(sampler_module, "COMPACT_AT_ENDED_SHARE", share)
    model = markov()
    check_same(sampler_of(model, max_new_tokens=12)([[0], [1]], 40, keys_of(2, 40)), expected)
    alive = [int(expected.completion_mask[:, column].sum()) for column in range(1, 12)]
    if share == 0.0:
        assert model.decoded == alive  # a row is gone as soon as it has ended
    if share == 2.0:
        assert model.decoded == [80] * 11  # never
    if share == 0.125:
        assert all(left <= rows <= left / 0.875 for left, rows in zip(alive, model.decoded, strict=True))
        assert model.decoded[-1] < 40


def test_sampling_stops_when_all_rows_have_ended() -> None:
    table = torch.zeros(VOCABULARY, VOCABULARY)
    table[:, EOS] = 100.0
    model = MarkovBackbone(table)
    drawn = sampler_of(model, max_new_tokens=30)([[0]], 5, keys_of(1, 5))
    assert drawn.completion_ids.tolist() == [[EOS]] * 5
    assert model.decoded == []


def test_order_of_prompts_and_company_change_nothing() -> None:
    prompts, keys = [[0], [1, 2], [3, 1, 0]], keys_of(3, 8)
    together = sampler_of(markov())(prompts, 8, keys)
    for number, prompt in enumerate(prompts):
        rows = slice(8 * number, 8 * number + 8)
        check_same(sampler_of(markov())([prompt], 8, keys[rows]), rows_of(together, rows))
    turned = sampler_of(markov())(prompts[::-1], 8, keys.view(3, 8, 3).flip(0).flatten(0, 1))
    check_same(turned, rows_of(together, [*range(16, 24), *range(8, 16), *range(8)]))
    copies = keys[:8].flip(0)
    check_same(sampler_of(markov())([prompts[0]], 8, copies), rows_of(together, list(range(7, -1, -1))))


def test_a_shorter_limit_cuts_and_changes_nothing_before() -> None:
    long = sampler_of(markov(), max_new_tokens=12)([[0]], 30, keys_of(1, 30))
    short = sampler_of(markov(), max_new_tokens=5)([[0]], 30, keys_of(1, 30))
    assert torch.equal(short.completion_ids, long.completion_ids[:, :5])
    assert torch.equal(
        short.finished, long.completion_mask[:, :5].sum(1) == long.completion_mask.sum(1) * long.finished
    )


def test_seed_and_keys_change_what_is_drawn() -> None:
    base = sampler_of(markov(), max_new_tokens=8)([[0]], 30, keys_of(1, 30)).completion_ids
    other_seed = sampler_of(markov(), seed=8, max_new_tokens=8)([[0]], 30, keys_of(1, 30)).completion_ids
    other_rollout = sampler_of(markov(), max_new_tokens=8)([[0]], 30, keys_of(1, 30, rollout=1)).completion_ids
    for other in (other_seed, other_rollout):
        assert not torch.equal(base[:, :4], other[:, :4])
    assert len(base[:, :4].unique(dim=0)) > 15  # the copies of a prompt differ from one another


# ------------------------------------------------------------------------------------------------------- a real backbone

REAL = tiny(vocab_size=12, n_layers=3, max_positions=48)
REAL_EOS, REAL_PAD = 10, 11
PROMPTS = random_documents([7, 2, 4, 1, 11], 10, seed=3)


def real_sampler(model: DeepSeekBackbone, **changes: object) -> Sampler:
    return sampler_of(model, eos_id=REAL_EOS, pad_id=REAL_PAD, **{"max_new_tokens": 14, **changes})


@torch.no_grad()
def plain_logprobs(model: DeepSeekBackbone, prompt: list[int], completion: list[int], temperature: float) -> Tensor:
    """log softmax(logits / temperature) at every place of the completion, T x V, by a forward over this one text."""
    hidden = model.hidden(pack([[[*prompt, *completion]]]), with_mtp=False).hidden[0]
    return (model.unembed(hidden[len(prompt) - 1 : -1]) / temperature).log_softmax(-1)


@pytest.mark.parametrize(("temperature", "top_p"), SETTINGS)
def test_stored_log_probs_are_those_of_a_plain_forward(temperature: float, top_p: float) -> None:
    model = backbone(REAL)
    drawn = real_sampler(model, sampling_temperature=temperature, top_p=top_p)(PROMPTS, 6, keys_of(5, 6))
    lengths = drawn.completion_mask.sum(1).tolist()
    assert len(set(lengths)) > 4 and bool(drawn.finished.any()) and not bool(drawn.finished.all())
    for row, n in enumerate(lengths):
        ids = drawn.completion_ids[row, :n]
        expected = plain_logprobs(model, PROMPTS[row // 6], ids.tolist(), temperature)
        policy = expected.gather(1, ids[:, None]).squeeze(1)
        torch.testing.assert_close(drawn.policy_logprobs[row, :n], policy, atol=1e-4, rtol=0)
        kept_mass = torch.tensor([float(_mass_of_nucleus(line.exp().tolist(), top_p)) for line in expected])
        torch.testing.assert_close(drawn.sampler_logprobs[row, :n], policy - kept_mass.log(), atol=1e-4, rtol=0)


def _mass_of_nucleus(probabilities: list[float], top_p: float) -> float:
    mass = 0.0
    for probability in sorted(probabilities, reverse=True):
        if mass >= top_p:
            break
        mass += probability
    return mass


def test_company_padding_and_waves_do_not_matter_to_a_real_backbone() -> None:
    """Prompts of 1 to 11 tokens stand left-padded in one batch; by itself none is padded."""
    model, keys = backbone(REAL), keys_of(5, 6)
    together = real_sampler(model, record_routes=True)(PROMPTS, 6, keys)
    check_same(real_sampler(model, record_routes=True, max_rows=4)(PROMPTS, 6, keys), together, atol=1e-4)
    for number, prompt in enumerate(PROMPTS):
        rows = slice(6 * number, 6 * number + 6)
        alone = real_sampler(model, record_routes=True)([prompt], 6, keys[rows])
        cut = rows_of(together, rows)
        own_prompt = cut.prompt_routes[
            :, :, together.prompt_routes.shape[2] - len(prompt) + 1 :
        ]  # padded to the longest
        check_same(alone, dataclasses.replace(cut, prompt_routes=own_prompt), atol=1e-4)


def model_of(kind: str) -> Any:
    if kind == "of transformers":
        made: Any = HFBackbone(HFModelConfig({"model_type": "qwen2", **DENSE, "vocab_size": 12}))
    else:
        recurrent = {"n_layers": 4, "attention_kind": "lightning", "softmax_attention_every": 4}
        made = backbone(tiny(vocab_size=12, max_positions=48, **(recurrent if kind == "with recurrent states" else {})))
    randomise(made, 3)
    return made.eval()


@pytest.mark.parametrize("on_a_gpu", [False, True])
@pytest.mark.parametrize("kind", ["latents", "with recurrent states", "of transformers"])
def test_a_cache_that_grows_gives_the_bits_of_one_with_room_for_all(
    kind: str, on_a_gpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prompts of 1 to 11 tokens, 16 more, of which the last is never cached: 26 columns; in blocks of 4 12, half of it more, ..."""
    model = model_of(kind)
    monkeypatch.setattr(kv_cache, "columns_per_block", lambda device: 4 if on_a_gpu else 1)
    monkeypatch.setattr(kv_cache.StepGraph, "is_possible", False)
    widths, new_cache = [], model.new_cache

    def watched(rows: int, columns: int) -> Any:
        cache = new_cache(rows, columns)
        grow = cache.grow

        def growing(more: int) -> None:
            assert cache.room == 0
            grow(more)
            widths.append(cache.mask.shape[1])

        monkeypatch.setattr(cache, "grow", growing)
        widths.append(columns)
        return cache

    monkeypatch.setattr(model, "new_cache", watched)
    sampler, keys = real_sampler(model, max_new_tokens=16), keys_of(5, 6)
    expected = sampler(PROMPTS, 6, keys)
    assert widths == [11 + 16] and len(set(expected.completion_mask.sum(1).tolist())) > 5
    monkeypatch.setattr(kv_cache, "COLUMN_BLOCK", 4)
    check_same(sampler(PROMPTS, 6, keys), expected)
    assert widths[1:] == [12, 16, 24, 26]


def test_a_cache_has_no_room_for_tokens_that_never_come() -> None:
    """A limit of 10,000 tokens would take 3 rows x 3 layers x 20 numbers x 4 bytes x 10,000 = 7.2 MB; the rows end before 500."""
    model = backbone(tiny(vocab_size=12, n_layers=3, max_positions=512))
    with LiveTensors(model.parameters()) as live:
        drawn = real_sampler(model, max_new_tokens=10_000)([[1, 2, 3]], 3, keys_of(1, 3))
    assert bool(drawn.finished.all())
    # Tokens, two log-probs, a mask and a uniform number for each of 30,000 places: at most 32 bytes each, 1 MB.
    assert live.peak < 2e6


@torch.no_grad()
def test_recorded_routes_are_those_of_the_place_that_predicts() -> None:
    model = backbone(REAL)
    drawn = real_sampler(model, record_routes=True)(PROMPTS, 4, keys_of(5, 4))
    n_layers = REAL.n_layers - REAL.n_dense_layers
    assert drawn.routes.shape == (n_layers, 20, drawn.completion_ids.shape[1], REAL.n_activated_experts)
    for row, n in enumerate(drawn.completion_mask.sum(1).tolist()):
        prompt = PROMPTS[row // 4]
        text = [*prompt, *drawn.completion_ids[row, :n].tolist()]
        routes = model.hidden(pack([[text]]), with_mtp=False).routes[:, 0, len(prompt) - 1 : -1]
        assert torch.equal(drawn.routes[:, row, :n].sort(-1)[0], routes.sort(-1)[0])
        before = model.hidden(pack([[text]]), with_mtp=False).routes[:, 0, : len(prompt) - 1]
        columns = [drawn.prompt_routes.shape[2] - before.shape[1], before.shape[1]]
        padding, recorded = drawn.prompt_routes[:, row].split(columns, 1)
        assert torch.equal(recorded.sort(-1)[0], before.sort(-1)[0]) and bool((padding == -1).all())
    without = real_sampler(model)(PROMPTS, 4, keys_of(5, 4))
    assert without.routes.numel() == without.prompt_routes.numel() == 0


def test_there_is_no_copy_that_could_go_stale() -> None:
    model, keys = backbone(REAL), keys_of(5, 4)
    sampler = real_sampler(model)
    before = sampler(PROMPTS, 4, keys)
    randomise(model, seed=99)
    after = sampler(PROMPTS, 4, keys)
    check_same(after, real_sampler(model)(PROMPTS, 4, keys))
    first = after.policy_logprobs[:, 0]
    assert float((first - before.policy_logprobs[:, 0]).abs().max()) > 0.1
    expected = [plain_logprobs(model, PROMPTS[r // 4], [int(after.completion_ids[r, 0])], 1.0)[0] for r in range(20)]
    chosen = torch.stack(expected).gather(1, after.completion_ids[:, :1]).squeeze(1)
    torch.testing.assert_close(first, chosen, atol=1e-4, rtol=0)


def test_weights_are_cast_once_a_call_to_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step finds the weights of its products in BF16; those of the MTP module, which draws nothing, stay."""
    model = DeepSeekBackbone(REAL, PlainPrecision("bf16"))
    randomise(model, 3)
    seen: list[set[torch.dtype]] = []
    step = model.step
    model.step = lambda *a: seen.append({p.dtype for p in model.blocks.parameters()}) or step(*a)  # type: ignore[method-assign]
    found = real_sampler(model)(PROMPTS, 2, keys_of(5, 2))
    assert len(seen) > 5 and all(torch.bfloat16 in types for types in seen)
    monkeypatch.setattr(sampler_module, "cast_once", lambda *a: nullcontext())
    check_same(real_sampler(model)(PROMPTS, 2, keys_of(5, 2)), found)
    assert seen[-1] == {p.dtype for p in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("training", [True, False])
def test_sampling_is_done_in_evaluation_mode_and_the_mode_restored(training: bool) -> None:
    model = markov().train(training)
    drawn = sampler_of(model)([[0]], 4, keys_of(1, 4))
    assert model.training is training
    assert set(model.was_training) == {False}
    assert not drawn.policy_logprobs.requires_grad


def test_the_mode_is_restored_after_an_error() -> None:
    model = markov().train()
    model.unembed = lambda hidden: 1 / 0  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError):
        sampler_of(model)([[0]], 4, keys_of(1, 4))
    assert model.training


def test_sampling_leaves_no_expert_load_behind() -> None:
    """Load is counted in training forwards only: it decides the routers' biases."""
    model = backbone(REAL).train()
    seen = []
    step = model.step
    model.step = lambda *a: seen.append(step(*a)) or seen[-1]  # type: ignore[method-assign]
    real_sampler(model)(PROMPTS, 2, keys_of(5, 2))
    assert seen and all(int(output.expert_load.sum()) == 0 for output in seen)


# --------------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sampling_temperature", 0.0),
        ("sampling_temperature", -1.0),
        ("sampling_temperature", "1"),
        ("sampling_temperature", float("nan")),
        ("top_p", 0.0),
        ("top_p", 1.01),
        ("top_p", True),
        ("max_new_tokens", 0),
        ("max_new_tokens", 1.5),
    ],
)
def test_bad_sampling_fields_are_named(field: str, value: object) -> None:
    with pytest.raises(InvalidInput, match=rf"rollout\.{field}={value!r} is not allowed"):
        SamplingConfig(**{field: value})


def test_bad_max_rows_is_named() -> None:
    with pytest.raises(InvalidInput, match=r"rollout\.max_rows=0 is not allowed"):
        sampler_of(markov(), max_rows=0)


# --------------------------------------------------------------------------------------------------------------- the device


def recorded(sampler: Sampler, prompts: list[list[int]], copies: int, max_new_tokens: int | None = None) -> Generation:
    sampler.record_routes = True
    return sampler(prompts, copies, keys_of(len(prompts), copies), max_new_tokens)


@pytest.mark.parametrize("top_p", [1.0, 0.8])
def test_every_tensor_is_made_on_the_backbones_device(top_p: float) -> None:
    """Under another default device, where tensors have no data, whatever is not placed on purpose fails."""
    mini = Miniature(rollout=rollout_config(top_p=top_p, max_rows=3))
    prompts = [[1, 2, 3], [4, 5], [6]]
    expected = recorded(mini.sampler(), prompts, 2)
    keys = keys_of(3, 2)
    sampler = mini.sampler()
    sampler.record_routes = True
    with torch.device("meta"):
        found = sampler(prompts, 2, keys)
    for field in dataclasses.fields(Generation):
        assert getattr(found, field.name).device.type == "cpu", field.name
        assert torch.equal(getattr(found, field.name), getattr(expected, field.name)), field.name


def test_the_device_is_that_of_the_weights() -> None:
    assert device_of(torch.nn.Linear(1, 1, device="meta")) == torch.device("meta")
    assert device_of(object()) == device_of(torch.nn.Identity()) == torch.device("cpu")


class _Waits(TorchDispatchMode):
    """Counts the operators whose result the host of a GPU would have to wait for, all of which a CPU has, too."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        by_mask = "index" in name and any(
            isinstance(index, Tensor) and index.dtype is torch.bool for index in tree_leaves(args[1:2])
        )
        if name in WAITS or by_mask:
            self.seen[name] += 1
        return func(*args, **(kwargs or {}))


def waits_of(sampler: Sampler, tokens: int) -> int:
    """How often the host waits while rows that never end draw `tokens` tokens."""
    with _Waits() as waits:
        recorded(sampler, [[1, 2, 3], [4, 5], [6]], 2, tokens)
    return sum(waits.seen.values())


def test_the_host_waits_once_in_several_tokens_and_never_for_a_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The looks alone, one for every `TOKENS_PER_LOOK` tokens, whatever the model has in layers; routes are kept, too."""
    monkeypatch.setattr(sampler_module, "tokens_per_look", lambda device: TOKENS_PER_LOOK)
    for layers in (2, 4):
        model = backbone(tiny(vocab_size=12, n_layers=layers, max_positions=128))
        sampler = sampler_of(model, eos_id=-1, pad_id=REAL_PAD, max_new_tokens=1)
        assert waits_of(sampler, 1 + 4 * TOKENS_PER_LOOK) - waits_of(sampler, 1) == 4


@pytest.mark.parametrize("looks", [2, 3, 50])
def test_how_often_is_looked_changes_nothing(looks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = sampler_of(markov(), max_new_tokens=12)
    expected = sampler([[0], [1]], 40, keys_of(2, 40))
    monkeypatch.setattr(sampler_module, "tokens_per_look", lambda device: looks)
    check_same(sampler([[0], [1]], 40, keys_of(2, 40)), expected)


def test_a_gpu_is_looked_at_less_often_than_a_cpu() -> None:
    assert tokens_per_look(torch.device("cpu")) == 1
    assert tokens_per_look(torch.device("cuda", 0)) == TOKENS_PER_LOOK


ON_A_GPU = """
import json
from tests.rollout.test_sampler import keys_of
from tests.support.fake_cuda.records import RECORDS
from tests.support.miniature import Miniature, rollout_config
mini = Miniature(rollout=rollout_config(top_p={top_p}))
sampler = mini.sampler()
sampler.eos_id, sampler.record_routes = -1, True
prompts = [[1, 2, 3], [4, 5], [6]]
expected = sampler(prompts, 2, keys_of(3, 2), 33)
mini.model.cuda()
for tokens in (1, 33):
    RECORDS.take()
    found = sampler(prompts, 2, keys_of(3, 2), tokens)
    print(json.dumps({{name: sum(counts.values()) for name, counts in RECORDS.take().items()}}))
assert found.completion_ids.tolist() == expected.completion_ids.tolist()
assert found.routes.tolist() == expected.routes.tolist()
assert (found.policy_logprobs - expected.policy_logprobs).abs().max() < 1e-4
"""


@pytest.mark.slow
@pytest.mark.parametrize("top_p", [1.0, 0.8])
def test_the_host_waits_for_a_pretend_gpu_once_in_several_tokens(top_p: float, tmp_path: Path) -> None:
    """32 tokens more: two looks, and nothing that is moved to the device, or waits there, or has no deterministic kernel."""
    asked, answered = tmp_path / "commands.json", tmp_path / "results.json"
    asked.write_text(json.dumps({"draw": ["python", ON_A_GPU.format(top_p=top_p)]}))
    process = start("tests.support.fake_cuda.commands", str(asked), str(answered), cwd=ROOT)
    assert process.returncode == 0, process.stderr
    result = json.loads(answered.read_text())["draw"]
    assert result["code"] == 0, result["err"][-3000:]
    one, many = (json.loads(line) for line in result["out"].splitlines())
    assert many["waits"] - one["waits"] == 32 // TOKENS_PER_LOOK
    assert many["uploads"] == one["uploads"] and many["undetermined"] == many["host_work"] == 0


@pytest.mark.requires_gpu
def test_a_gpu_samples_what_the_cpu_samples() -> None:
    mini = Miniature()
    prompts = [[1, 2, 3], [4, 5], [6]]
    expected = recorded(mini.sampler(), prompts, 4)
    mini.model.cuda()
    found = recorded(mini.sampler(), prompts, 4)
    assert found.completion_ids.device.type == found.routes.device.type == "cpu"
    assert torch.equal(found.completion_ids, expected.completion_ids)
    torch.testing.assert_close(found.policy_logprobs, expected.policy_logprobs, atol=1e-3, rtol=0)
