"""Drafts may change how many steps are taken, and nothing else: tokens, log-probs and routes are the plain sampler's.

With a `MarkovBackbone` whose drafts come from a table of their own, every probability is known, that of acceptance as well. With
a real backbone it is the cache that must not keep what was refused.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from r1_lightning.callbacks.rollout_logger import RolloutLogger
from r1_lightning.callbacks.self_check import SelfCheck
from r1_lightning.model import precision as precision_module
from r1_lightning.model.backbone import DeepSeekBackbone
from r1_lightning.model.kv_cache import LatentKVCache
from r1_lightning.model.precision import PlainPrecision
from r1_lightning.rollout import mtp_drafts as module
from r1_lightning.rollout import sampler as sampler_module
from r1_lightning.rollout.drawing import inverse_cdf, nucleus
from r1_lightning.rollout.dynamic_sampling import until_informative
from r1_lightning.rollout.keyed_random import keyed_uniforms
from r1_lightning.rollout.mtp_drafts import DraftingSampler, MTPDrafts, drafts_of
from r1_lightning.rollout.sampler import Sampler, SamplerSettings, SamplingConfig
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.tensors import Drafts, Generation
from tests.model.tiny import backbone, pack, random_documents, tiny
from tests.rollout.fakes import MarkovBackbone, RowCounter, keys_of
from tests.support import miniature
from tests.support.miniature import Miniature, Sums, rollout_config, trainer

VOCABULARY, EOS, PAD, NEVER = 6, 4, 5, 5
SETTINGS = [(1.0, 1.0), (0.7, 0.8), (1.6, 0.6)]


class NoCache(RowCounter):
    """Nothing is cached, so that nothing has to be forgotten; there is always room."""

    length = 0

    def take(self, columns: int) -> None:
        assert columns > 0

    def forget_newest(self, rows: Tensor) -> None:
        assert len(rows) == self.rows


class DraftingMarkov(MarkovBackbone):
    """A `DraftingBackbone`: behind token a, the model draws by line a of `logits`, the module by the line `drafts_as[a]`."""

    mtp_depth = 1

    def __init__(self, logits: Tensor, drafts_as: list[int]) -> None:
        super().__init__(logits)
        self.drafts_as = torch.tensor(drafts_as)

    def new_cache(self, rows: int, max_tokens: int) -> NoCache:
        return NoCache(rows, 2)

    def new_mtp_cache(self, rows: int, max_tokens: int) -> NoCache:
        return NoCache(rows, 2)

    def step_mtp(self, hidden: Tensor, next_ids: Tensor, is_token: Tensor, cache: NoCache) -> Tensor:
        assert cache.rows == len(hidden) == len(next_ids) == len(is_token)
        return torch.nn.functional.one_hot(self.drafts_as[next_ids], VOCABULARY).float()


def table(seed: int = 0) -> Tensor:
    """Token NEVER follows on itself alone, and EOS comes after about six tokens."""
    logits = torch.randn(VOCABULARY, VOCABULARY, generator=torch.Generator().manual_seed(seed))
    logits[:, NEVER] = -1e9
    logits[NEVER] = torch.where(torch.arange(VOCABULARY) == NEVER, 0.0, -1e9)
    return logits


PERFECT = list(range(VOCABULARY))
WRONG = [NEVER] * VOCABULARY
OTHERS = [1, 2, 3, 0, 4, 5]


def markov(drafts_as: list[int]) -> DraftingMarkov:
    return DraftingMarkov(table(), drafts_as)


def settings_of(**changes: Any) -> tuple[SamplingConfig, dict[str, Any]]:
    fields = {field.name for field in dataclasses.fields(SamplingConfig)}
    config = SamplingConfig(**{"max_new_tokens": 12, **{k: v for k, v in changes.items() if k in fields}})
    return config, {k: v for k, v in changes.items() if k not in fields}


def both(model: Any, kind: type[DraftingSampler] = DraftingSampler, **changes: Any) -> tuple[Sampler, DraftingSampler]:
    """The plain sampler and the drafting one, with the same settings and the same model."""
    config, rest = settings_of(**changes)
    ends = rest.pop("eos_id", EOS)
    ids = ([ends] if isinstance(ends, int) else ends, rest.pop("pad_id", PAD))
    settings = SamplerSettings(config, *ids, 7, **rest)
    return Sampler(model, settings), kind(model, settings)


def check_same(found: Generation, expected: Generation, atol: float = 0.0) -> None:
    for field in dataclasses.fields(Generation):
        one, other = getattr(found, field.name), getattr(expected, field.name)
        torch.testing.assert_close(one, other, atol=atol if one.is_floating_point() else 0, rtol=0)


# ------------------------------------------------------------------------------------------ a model that is known throughout

PROMPTS = [[0], [1, 2], [3, 3, 0], [2]]


@pytest.mark.parametrize(("temperature", "top_p"), SETTINGS)
@pytest.mark.parametrize("drafts_as", [PERFECT, WRONG, OTHERS], ids=["perfect", "wrong", "others"])
def test_tokens_are_the_plain_samplers_whatever_is_drafted(
    temperature: float, top_p: float, drafts_as: list[int]
) -> None:
    plain, drafting = both(markov(drafts_as), sampling_temperature=temperature, top_p=top_p)
    keys = keys_of(4, 25)
    expected, found = plain(PROMPTS, 25, keys), drafting(PROMPTS, 25, keys)
    check_same(found, expected, atol=1e-6)
    lengths = expected.completion_mask.sum(1)
    assert len(set(lengths.tolist())) > 5 and 0 < int(expected.finished.sum()) < 100  # the cases were there
    drafts = drafting.drafts
    if drafts_as is PERFECT:  # after its first token, a row of n takes ceil((n - 1) / 2) steps
        assert drafts == Drafts(int((lengths // 2).sum()), int((lengths // 2).sum()))
    elif drafts_as is WRONG:
        assert drafts == Drafts(int((lengths - 1).sum()), 0)
    else:
        assert 0.05 < drafts.accepted / drafts.proposed < 0.95
        # A step takes the token behind the last and, where the draft held and neither end was met, one more.
        assert int((lengths - 1).sum()) - drafts.proposed <= drafts.accepted


def test_perfect_drafts_halve_the_steps() -> None:
    never_ends = table()
    never_ends[:, EOS] = -1e9
    for limit, steps in ((1, 0), (2, 1), (3, 1), (4, 2), (12, 6), (13, 6)):
        model = DraftingMarkov(never_ends, PERFECT)
        plain, drafting = both(model, max_new_tokens=limit)
        found = drafting([[0]], 5, keys_of(1, 5))
        assert model.decoded == [5] * steps
        assert found.completion_mask.sum(1).tolist() == [limit] * 5
        check_same(found, plain([[0]], 5, keys_of(1, 5)))


@pytest.mark.parametrize("before", [1, 2, 3, 4])
def test_an_end_that_was_drafted_is_the_end(before: int) -> None:
    """0, 1, 2, 3, end: the end is the accepted draft, or stands behind it, by the parity of the start."""
    logits = torch.full((VOCABULARY, VOCABULARY), -1e9)
    for token in range(VOCABULARY):
        logits[token, min(token + 1, EOS)] = 0.0
    drafting = both(DraftingMarkov(logits, PERFECT), max_new_tokens=9)[1]
    found = drafting([[EOS - before - 1]] if before < 4 else [[NEVER, 0]], 2, keys_of(1, 2))
    own = list(range(EOS - before, EOS + 1)) if before < 4 else [1, 2, 3, EOS]
    assert found.completion_ids.tolist() == [own] * 2
    assert found.finished.tolist() == [True, True]
    assert drafting.drafts.accepted == drafting.drafts.proposed == 2 * (len(own) // 2)


@pytest.mark.parametrize("share", [0.0, 0.125, 2.0])
@pytest.mark.parametrize("max_rows", [1, 7, 1000])
def test_waves_and_dropped_rows_change_neither_tokens_nor_drafts(
    share: float, max_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, whole = both(markov(OTHERS))
    expected, _ = plain(PROMPTS, 9, keys_of(4, 9)), whole(PROMPTS, 9, keys_of(4, 9))
    monkeypatch.setattr(sampler_module, "COMPACT_AT_ENDED_SHARE", share)
    drafting = both(markov(OTHERS), max_rows=max_rows)[1]
    done: list[int] = []
    check_same(drafting(PROMPTS, 9, keys_of(4, 9), progress=done.append), expected, atol=1e-6)
    assert drafting.drafts == whole.drafts and sum(done) == 36


def test_drafts_are_those_of_the_latest_call() -> None:
    drafting = both(markov(OTHERS))[1]
    assert drafting.drafts == Drafts()
    drafting(PROMPTS, 9, keys_of(4, 9))
    first = drafting.drafts
    drafting(PROMPTS, 9, keys_of(4, 9), 1)
    assert first.proposed > 0 and drafting.drafts == Drafts()
    drafting(PROMPTS, 9, keys_of(4, 9))
    assert drafting.drafts == first
    assert drafts_of(drafting) == first and drafts_of(both(markov(OTHERS))[0]) == Drafts()


# ---------------------------------------------------------------------------------------------------------------- statistics


def test_tokens_are_distributed_as_the_model_says() -> None:
    """Steps from token a to b where b was verified: 4 lines of 5 tokens, 16 degrees of freedom, above 39.3 once in 1,000."""
    model, n = markov(OTHERS), 10_000
    drafting = both(model, max_new_tokens=5, max_rows=n)[1]
    drawn = drafting([[0]], n, keys_of(1, n))
    ids, mask = drawn.completion_ids, drawn.completion_mask[:, 1:]
    counts = torch.zeros(VOCABULARY, VOCABULARY)
    counts.index_put_((ids[:, :-1][mask], ids[:, 1:][mask]), torch.ones(int(mask.sum())), accumulate=True)
    assert 0.2 < drafting.drafts.accepted / drafting.drafts.proposed < 0.8
    assert float(counts[EOS].sum()) == float(counts[:, NEVER].sum()) == 0
    lines = [0, 1, 2, 3]
    counts, chances = counts[lines, :NEVER], model.logits.detach().softmax(-1)[lines, :NEVER]
    expected = counts.sum(1, keepdim=True) * chances
    assert float(expected.min()) > 5
    assert float(((counts - expected) ** 2 / expected).sum()) < 39.3


@pytest.mark.parametrize(("a", "b"), [(0, 1), (1, 2), (2, 3), (3, 0)])
def test_acceptance_is_the_overlap_of_the_intervals(a: int, b: int) -> None:
    """Token i has the interval [F(i - 1), F(i)) of the uniform number in both distributions: 20,000 drafts, five sigma.

    The bounds of the module's docstring lie around it.
    """
    p, q = table().double().softmax(-1)[[a, b]]
    upper_p, upper_q = p.cumsum(0), q.cumsum(0)
    lower = torch.maximum(upper_p - p, upper_q - q)
    overlap = float((torch.minimum(upper_p, upper_q) - lower).clamp(min=0).sum())
    total_variation = float((p - q).abs().sum()) / 2
    assert total_variation <= 1 - overlap <= float((upper_p - upper_q).abs().sum()) <= NEVER * total_variation
    n, only_a = 20_000, torch.full((VOCABULARY, VOCABULARY), -1e9)
    only_a[PAD, a] = 0.0  # the prompt ends with PAD, and the first token is a
    only_a[:NEVER] = table()[:NEVER]
    drafting = both(DraftingMarkov(only_a, OTHERS), max_new_tokens=2, max_rows=n)[1]
    assert OTHERS[a] == b
    drafting([[PAD]], n, keys_of(1, n))
    assert drafting.drafts.proposed == n
    assert abs(drafting.drafts.accepted / n - overlap) < 5 * (overlap * (1 - overlap) / n) ** 0.5


# ------------------------------------------------------------------------------------------------------------ a real backbone

REAL = tiny(vocab_size=12, n_layers=3, max_positions=25)  # as many as the longest prompt and completion have
REAL_IDS = {"eos_id": 10, "pad_id": 11}
REAL_PROMPTS = random_documents([7, 2, 4, 1, 11], 10, seed=3)
KEYS = keys_of(5, 6)


def real_both(kind: type[DraftingSampler] = DraftingSampler, **changes: Any) -> tuple[Sampler, DraftingSampler]:
    return both(backbone(REAL), kind, **{**REAL_IDS, "max_new_tokens": 14, **changes})


class Oracle(DraftingSampler):
    """Drafts what the plain sampler draws, `shift` ids further on: 0 is always right, any other never. One wave."""

    shift = 0
    answers: Tensor

    def _draft(self, start: Any, rows: Any, verified: Any, cache: Any) -> None:
        super()._draft(start, rows, verified, cache)
        place = rows.drawn.clamp(max=self.answers.shape[1] - 1)
        rows.draft = (self.answers[rows.active, place] + self.shift) % REAL.vocab_size


class Refuted(Oracle):
    shift = 1


@pytest.mark.parametrize(("temperature", "top_p"), SETTINGS)
@pytest.mark.parametrize("spare", [1, 5, 32])
def test_a_real_model_draws_what_it_would_without_drafts(
    temperature: float, top_p: float, spare: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Uneven prompts, left-padded; with few spare columns the caches close their gaps again and again."""
    closed: list[int] = []
    close_gaps = LatentKVCache.close_gaps
    monkeypatch.setattr(LatentKVCache, "close_gaps", lambda cache: closed.append(cache.length) or close_gaps(cache))
    monkeypatch.setattr(module, "SPARE_COLUMNS", spare)
    plain, drafting = real_both(sampling_temperature=temperature, top_p=top_p, record_routes=True)
    expected, found = plain(REAL_PROMPTS, 6, KEYS), drafting(REAL_PROMPTS, 6, KEYS)
    check_same(found, expected, atol=1e-4)
    assert found.routes.numel() and found.prompt_routes.numel()
    assert 0 < drafting.drafts.accepted < drafting.drafts.proposed
    assert bool(closed) == (spare < 32)


@pytest.mark.parametrize("max_rows", [1, 4, 11])
def test_waves_of_a_real_model(max_rows: int) -> None:
    plain, drafting = real_both(max_rows=max_rows, record_routes=True)
    check_same(drafting(REAL_PROMPTS, 6, KEYS), plain(REAL_PROMPTS, 6, KEYS), atol=1e-4)


def test_prompts_of_one_token_leave_the_module_nothing_to_read() -> None:
    plain, drafting = real_both()
    check_same(drafting([[1], [4]], 6, keys_of(2, 6)), plain([[1], [4]], 6, keys_of(2, 6)), atol=1e-4)
    assert drafting.drafts.proposed > 0


@pytest.mark.parametrize("kind", [Oracle, Refuted])
def test_right_drafts_all_count_and_wrong_ones_never(kind: type[Oracle]) -> None:
    plain, drafting = real_both(kind)
    assert isinstance(drafting, Oracle)
    expected = plain(REAL_PROMPTS, 6, KEYS)
    drafting.answers = expected.completion_ids
    check_same(drafting(REAL_PROMPTS, 6, KEYS), expected, atol=1e-4)
    lengths = expected.completion_mask.sum(1)
    steps = (lengths // 2).sum() if kind is Oracle else (lengths - 1).sum()
    assert drafting.drafts == Drafts(int(steps), int(steps) if kind is Oracle else 0)


def test_a_refused_draft_left_in_the_cache_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    model = backbone(dataclasses.replace(REAL, max_positions=48))  # what is not forgotten is counted
    plain, drafting = both(model, Refuted, max_new_tokens=14, **REAL_IDS)
    assert isinstance(drafting, Refuted)
    expected = plain(REAL_PROMPTS, 6, KEYS)
    drafting.answers = expected.completion_ids
    monkeypatch.setattr(LatentKVCache, "forget_newest", lambda cache, rows: None)
    found = drafting(REAL_PROMPTS, 6, KEYS)
    assert not torch.equal(found.completion_ids[:, :6], expected.completion_ids[:, :6])


@pytest.mark.parametrize(("temperature", "top_p"), SETTINGS[:2])
@torch.no_grad()
def test_drafts_are_the_trained_modules_at_the_rows_own_numbers(temperature: float, top_p: float) -> None:
    """Each draft is what `hidden(...).mtp[0]` over this one text says, drawn with the number of the place it is meant for."""
    seen: list[tuple[int, int, int]] = []

    class Watched(DraftingSampler):
        def _draft(self, start: Any, rows: Any, verified: Any, cache: Any) -> None:
            super()._draft(start, rows, verified, cache)
            alive = rows.alive.nonzero().squeeze(1)
            seen.extend(zip(*(x[alive].tolist() for x in (rows.active, rows.drawn, rows.draft)), strict=True))

    drafting = real_both(Watched, sampling_temperature=temperature, top_p=top_p)[1]
    found, uniforms = drafting(REAL_PROMPTS, 6, KEYS), keyed_uniforms(7, KEYS, 14)
    model: DeepSeekBackbone = drafting.drafter
    assert len(seen) == drafting.drafts.proposed > 100
    for row, drawn, draft in seen:
        text = [*REAL_PROMPTS[row // 6], *found.completion_ids[row, :drawn].tolist()]
        last = model.hidden(pack([[text]])).mtp[0][:, len(text) - 2]  # it has seen the text's last token
        probabilities = (model.unembed(last) / temperature).softmax(-1)
        kept = nucleus(probabilities, top_p) if top_p < 1 else probabilities
        assert inverse_cdf(kept, uniforms[row, drawn : drawn + 1]).tolist() == [draft]


@torch.no_grad()
def test_next_tokens_of_a_real_model_are_distributed_as_it_says() -> None:
    """The token after the most frequent first one; 11 degrees of freedom: above 31.3 once in 1,000."""
    n = 6_000
    drafting = real_both(max_new_tokens=2, max_rows=n)[1]
    drawn = drafting([REAL_PROMPTS[0]], n, keys_of(1, n)).completion_ids
    first = int(drawn[:, 0][drawn[:, 0] != REAL_IDS["eos_id"]].mode().values)
    model: DeepSeekBackbone = drafting.drafter
    chances = model.unembed(model.hidden(pack([[[*REAL_PROMPTS[0], first]]])).hidden[0, -1]).softmax(-1)
    counts = torch.bincount(drawn[drawn[:, 0] == first, 1], minlength=12)
    expected = counts.sum() * chances
    assert counts.sum() > 1_000 and 0 < drafting.drafts.accepted < drafting.drafts.proposed
    assert float(((counts - expected) ** 2 / expected).sum()) < 31.3


def test_static_shapes_draw_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """The code that `precision.compile` compiles, run without the compiler."""
    monkeypatch.setattr(precision_module, "compiled_once", lambda function: function)
    model = backbone(REAL)
    twin = DeepSeekBackbone(REAL, PlainPrecision("fp32", True)).eval()
    twin.load_state_dict(model.state_dict())
    expected = real_both()[0](REAL_PROMPTS, 6, KEYS)
    found = both(twin, max_new_tokens=14, **REAL_IDS)[1](REAL_PROMPTS, 6, KEYS)
    check_same(found, expected, atol=1e-4)


def test_every_tensor_is_made_on_the_backbones_device() -> None:
    """Under another default device, where tensors have no data, whatever is not placed on purpose fails."""
    drafting = real_both(max_rows=7, record_routes=True)[1]
    expected = drafting(REAL_PROMPTS, 6, KEYS)
    with torch.device("meta"):
        found = drafting(REAL_PROMPTS, 6, KEYS)
    check_same(found, expected)


@pytest.mark.requires_gpu
def test_a_gpu_draws_what_the_cpu_draws() -> None:
    plain, drafting = real_both(record_routes=True)
    expected = plain(REAL_PROMPTS, 6, KEYS)
    drafting.drafter.cuda()
    found = drafting(REAL_PROMPTS, 6, KEYS)
    assert torch.equal(found.completion_ids, expected.completion_ids)
    torch.testing.assert_close(found.policy_logprobs, expected.policy_logprobs, atol=1e-3, rtol=0)


# ----------------------------------------------------------------------------------------------------------- where it is used


def drafting_miniature(**changes: Any) -> tuple[Miniature, DraftingSampler]:
    mini = Miniature(rollout=rollout_config(sampler=MTPDrafts(), **changes))
    tokenizer: Any = miniature.CharTokenizer()
    made = mini.rollout.sampler(mini.model, mini.rollout.sampler_settings(tokenizer, mini.seed))
    assert isinstance(made, DraftingSampler)
    return mini, made


def test_a_rollout_says_how_many_drafts_held() -> None:
    mini, drafting = drafting_miniature()
    problems = [Sums().train_problem(0, index) for index in range(3)]
    rollout, plain = mini.maker(drafting)(0, 0, problems), mini.maker()(0, 0, problems)
    assert rollout.drafts == drafting.drafts and rollout.drafts.proposed > 0
    expected = rollout.drafts.accepted / rollout.drafts.proposed
    assert rollout.summary()["rollout/draft_acceptance"] == expected
    assert rollout.summary().keys() - plain.summary().keys() == {"rollout/draft_acceptance"}
    assert torch.equal(rollout.generation.completion_ids, plain.generation.completion_ids)


def test_drafts_of_all_attempts_are_counted() -> None:
    mini, drafting = drafting_miniature()
    made: list[Drafts] = []

    def draw(attempt: int) -> Any:
        problems = [Sums().train_problem(0, 3 * attempt + index) for index in range(3)]
        rollout = mini.maker(drafting)(attempt, 0, problems)
        made.append(rollout.drafts)
        return rollout

    together = until_informative(draw, n_groups=7, attempts=3, pad_id=miniature.PAD)
    assert len(made) == 3 and together.drafts == sum(made, Drafts())


def test_acceptance_is_logged_saved_and_resumed(tmp_path: Path) -> None:
    mini, drafting = drafting_miniature()
    data = mini.rollouts(drafting)
    fit = trainer(1, tmp_path, [RolloutLogger(), SelfCheck()])
    fit.fit(mini.grpo(), datamodule=data)
    rollout = data.dataset.rollout
    assert rollout is not None
    share = rollout.drafts.accepted / rollout.drafts.proposed
    assert float(fit.callback_metrics["rollout/draft_acceptance"]) == pytest.approx(share)
    state = data.dataset.state_dict()
    again = mini.rollouts(drafting).dataset
    again.load_state_dict(state)
    assert again.rollout is not None and again.rollout.summary() == rollout.summary()
    again.load_state_dict({key: value for key, value in state.items() if key != "drafts"})
    assert again.rollout.drafts == Drafts()  # saved before there were drafts


def test_a_model_without_a_module_is_refused() -> None:
    settings = SamplerSettings(settings_of()[0], [EOS], PAD, 0)
    hybrid = backbone(tiny(attention_kind="lightning", softmax_attention_every=2))
    with pytest.raises(InvalidInput, match="takes refused tokens back, which a recurrent state cannot"):
        DraftingSampler(hybrid, settings)
    for model in (backbone(tiny(mtp_depth=0)), MarkovBackbone(table())):
        with pytest.raises(InvalidInput, match=r"model\.mtp_depth=0 is not allowed: rollout=mtp_drafts needs an MTP"):
            MTPDrafts()(model, settings)
