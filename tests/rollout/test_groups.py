"""A rollout from prompts to advantages: who is judged for what, in which order, and what is logged, all by hand."""

from __future__ import annotations

import dataclasses
import os
import signal
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from r1_lightning.rewards.combine import WeightedSum
from r1_lightning.rollout.advantage_estimators import LeaveOneOut
from r1_lightning.rollout.groups import RolloutConfig, RolloutMaker, completion_texts, rollout_keys
from r1_lightning.rollout.sampler import SamplerSettings, SamplingConfig
from r1_lightning.text.chat_template import ChatTemplate
from r1_lightning.types.errors import InvalidInput, Stopped
from r1_lightning.types.processes import Processes
from r1_lightning.types.stopping import REQUEUE, STOP
from r1_lightning.types.tensors import Generation
from r1_lightning.types.text import Problem
from tests.rollout.fakes import generation_of
from tests.rollout.letters import EOS, GENERATION, PROBLEMS, TEXTS, A, B, D, Letters, Matches
from tests.support.miniature import Miniature, Sums, rollout_config
from tests.support.processes import in_processes


def test_keys_count_prompts_and_their_samples() -> None:
    expected = [[7, 0, 0], [7, 0, 1], [7, 0, 2], [7, 1, 0], [7, 1, 1], [7, 1, 2]]
    assert rollout_keys(7, prompts=2, group_size=3).tolist() == expected
    assert rollout_keys(2**31, 1, 2).tolist() == [[2**31, 0, 0], [2**31, 0, 1]]  # more than 32 bits hold


def test_texts_end_where_the_completion_ends() -> None:
    assert completion_texts(GENERATION, Letters()) == TEXTS
    full = dataclasses.replace(
        GENERATION, completion_ids=GENERATION.completion_ids.masked_fill(GENERATION.completion_ids == 0, D)
    )
    assert completion_texts(full, Letters()) == TEXTS  # what stands behind the mask is no text


def test_only_the_end_is_left_out_of_a_text() -> None:
    """Padding and starts that were sampled stay visible, so that no judge takes the completion for a clean one."""
    sprinkled = [[A, 0, B, EOS], [1, A, EOS], [0, EOS], [A, 0], [EOS], [EOS, EOS]]
    texts = completion_texts(generation_of(sprinkled, [True] * 6), Letters())
    assert texts == ["a_b", "^a", "_", "a_", "", "$"]


def test_any_of_several_ends_is_left_out_of_a_text_once() -> None:
    tokenizer = Letters()
    tokenizer.other_ends = (D,)
    texts = completion_texts(generation_of([[A, D], [A, EOS], [D], [A, D, D], [D, A]], [True] * 5), tokenizer)
    assert texts == ["a", "a", "", "ad", "da"]


def test_a_prompt_without_room_for_its_completion_is_refused_before_sampling() -> None:
    """The template puts a letter before and after the question: 6 tokens and 4 new ones need a row of 10."""
    generator = Generator()
    problems = [Problem("a", "", "p0"), Problem("abcd", "", "p1")]

    def make(row_tokens: int) -> RolloutMaker:
        config = RolloutConfig(2, 3, max_new_tokens=4, row_tokens=row_tokens)
        return RolloutMaker(generator, Letters(), ChatTemplate("t", "q", "e"), WeightedSum([Matches()]), config)

    with pytest.raises(
        InvalidInput, match=r"^rollout\.row_tokens=9 is not allowed: a prompt of 6 tokens .* a row of 10"
    ):
        make(9)(0, 0, problems)
    assert not hasattr(generator, "prompts"), "it was sampled from"
    assert make(10)(0, 0, problems).prompts == generator.prompts


class Generator:
    """A `GenerateFn` that gives GENERATION and remembers what it was asked for."""

    def __call__(
        self, prompts: Sequence[Sequence[int]], copies: int, keys: Tensor, max_new_tokens: int | None = None
    ) -> Generation:
        self.prompts, self.copies, self.keys, self.limit = prompts, copies, keys, max_new_tokens
        return GENERATION


def test_a_rollout_by_hand() -> None:
    """Accuracies 1 0 0 and 1 1 0: means 1/3 and 2/3, population std sqrt(2)/3 both, so advantages of 1.4142 and 0.7071."""
    generator = Generator()
    config = RolloutConfig(prompts_per_rollout=2, group_size=3, max_new_tokens=3, row_tokens=16)
    make = RolloutMaker(generator, Letters(), ChatTemplate("t", "q", "e"), WeightedSum([Matches()]), config)
    rollout = make(number=5, policy_version=40, problems=PROBLEMS)
    letters = Letters()
    assert generator.prompts == [letters.encode("qxe"), letters.encode("qyze")] == rollout.prompts
    assert (generator.copies, generator.limit) == (3, 3)
    assert generator.keys.tolist() == rollout_keys(5, 2, 3).tolist()
    assert (rollout.number, rollout.policy_version, rollout.texts) == (5, 40, TEXTS)
    assert rollout.rewards.tolist() == [[1, 0, 0], [1, 1, 0]]
    high, low = 2**0.5, 0.5**0.5
    by_completion = torch.tensor([high, -low, -low, low, low, -high])[:, None]
    torch.testing.assert_close(rollout.advantages, by_completion * GENERATION.completion_mask)
    assert rollout.zero_variance_fraction == 0.0


# --------------------------------------------------------------------------------------------------------- the configuration


def test_the_defaults_are_r1_zeros_shape() -> None:
    config = RolloutConfig()
    assert (config.prompts_per_rollout, config.group_size) == (32, 16)
    sampling = RolloutConfig(sampling_temperature=0.7, top_p=0.8, max_new_tokens=9).sampling
    assert (sampling.sampling_temperature, sampling.top_p, sampling.max_new_tokens) == (0.7, 0.8, 9)
    settings = RolloutConfig(max_rows=7).sampler_settings(Letters(), seed=3, record_routes=True)
    assert settings == SamplerSettings(SamplingConfig(), (EOS,), 0, seed=3, max_rows=7, record_routes=True)


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("prompts_per_rollout", 0, "at least 1"),
        ("group_size", 1, "at least 2"),
        ("group_size", "four", "a whole number"),
        ("group_size", True, "a whole number"),
        ("minibatches_per_rollout", 0, "at least 1"),
        ("minibatches_per_rollout", 3, "it must divide prompts_per_rollout . group_size = 512"),
        ("row_tokens", 1, "at least 2"),
        ("row_tokens", 64, "a row must hold a prompt and max_new_tokens = 64"),
        ("max_rows", 0, "at least 1"),
        ("sampling_temperature", 0, "above 0"),
        ("top_p", 1.5, "at most 1"),
        ("max_new_tokens", -1, "at least 1"),
        ("share_prompts_from", 2, "at least 3"),
        ("minibatch_of", "prompts", "completions, groups"),
    ],
)
def test_bad_fields_are_named(field: str, value: object, allowed: str) -> None:
    with pytest.raises(InvalidInput, match=rf"^rollout\.{field}={value!r} is not allowed: .*{allowed}"):
        RolloutConfig(**{field: value})


def test_minibatches_of_whole_groups_must_share_out_all_groups() -> None:
    assert RolloutConfig(6, 4, minibatches_per_rollout=3, minibatch_of="groups").dealt_together == 4
    assert RolloutConfig(3, 4, minibatches_per_rollout=2).dealt_together == 1
    with pytest.raises(InvalidInput, match=r"minibatches_per_rollout=2 .*it must divide prompts_per_rollout = 3"):
        RolloutConfig(3, 4, minibatches_per_rollout=2, minibatch_of="groups")


def test_long_prompts_are_shared_unless_asked_otherwise() -> None:
    assert RolloutConfig().share_prompts_from == 64 and RolloutConfig(share_prompts_from=None).dealt_together == 1


def test_minibatches_must_share_out_all_rows() -> None:
    assert RolloutConfig(3, 4, minibatches_per_rollout=6).minibatches_per_rollout == 6
    with pytest.raises(InvalidInput, match="minibatches_per_rollout=5"):
        RolloutConfig(3, 4, minibatches_per_rollout=5)


def test_a_longer_limit_from_a_step_on() -> None:
    """R1-Zero's schedule in small: 3 tokens before step 8, 6 from it on; the row must hold the longer one."""
    generator = Generator()
    config = RolloutConfig(2, 3, max_new_tokens=3, row_tokens=16, longer_from_step=8, longer_max_new_tokens=6)
    make = RolloutMaker(generator, Letters(), ChatTemplate("t", "q", "e"), WeightedSum([Matches()]), config)
    limits = []
    for step in (0, 7, 8, 9):
        make(0, step, PROBLEMS)
        limits.append(generator.limit)
    assert limits == [3, 3, 6, 6]
    with pytest.raises(InvalidInput, match=r"row_tokens=6 .* max_new_tokens = 6"):
        dataclasses.replace(config, row_tokens=6)
    with pytest.raises(InvalidInput, match=r"longer_max_new_tokens=None .* together"):
        RolloutConfig(longer_from_step=8)
    with pytest.raises(InvalidInput, match="longer_max_new_tokens=2"):
        dataclasses.replace(config, longer_max_new_tokens=2)


def test_a_chosen_estimator_is_asked_and_has_no_scale() -> None:
    """Accuracies 1 0 0 and 1 1 0: leave-one-out gives the first completion 1 - 0, the fourth 1 - 1/2."""
    config = RolloutConfig(2, 3, max_new_tokens=3, row_tokens=16, advantage_scale="none", advantages=LeaveOneOut())
    make = RolloutMaker(Generator(), Letters(), ChatTemplate("t", "q", "e"), WeightedSum([Matches()]), config)
    assert make.estimator is config.advantages  # the stage that is given the configuration meets the same object
    torch.testing.assert_close(make(0, 0, PROBLEMS).advantages[[0, 3], 0], torch.tensor([1.0, 0.5]))
    message = r"^rollout\.advantage_scale='sample' is not allowed: with rollout\.advantages=LeaveOneOut it must be none"
    with pytest.raises(InvalidInput, match=message):
        dataclasses.replace(config, advantage_scale="sample")
    with pytest.raises(InvalidInput, match=r"^rollout\.advantages=3 is not allowed"):
        dataclasses.replace(config, advantages=3)


def _rollouts(processes: Processes, config: RolloutConfig, routes: bool) -> list[dict[str, Any]]:
    """Two rollouts of the miniature, as what can be compared."""
    mini = Miniature(rollout=config, processes=processes)
    sampler = mini.sampler()
    sampler.record_routes = routes
    make = mini.maker(sampler)
    found = []
    for number in range(2):
        count = config.prompts_per_rollout
        problems = [Sums().train_problem(0, number * count + place) for place in range(count)]
        rollout = make(number, 5, problems)
        told = {name: value for name, value in vars(rollout).items() if name != "generation"}
        told |= {f"generation.{name}": value for name, value in vars(rollout.generation).items()}
        found.append({**told, "summary": rollout.summary()})
    return found


@pytest.mark.parametrize("prompts, routes", [(5, False), (2, True)], ids=["five prompts", "fewer than processes"])
def test_several_processes_make_the_rollout_of_one(prompts: int, routes: bool) -> None:
    """Token by token, with rewards, reasons, advantages and measures: for 1, 2 and 3 processes, in all of them."""
    config = rollout_config(prompts_per_rollout=prompts)
    (expected,) = in_processes(1, _rollouts, config, routes)
    assert expected[0]["rewards"].unique().numel() > 1 and (expected[0]["generation.routes"].numel() > 0) == routes
    for count in (2, 3):
        for found in in_processes(count, _rollouts, config, routes):
            for own, other in zip(found, expected, strict=True):
                assert own.keys() == other.keys()
                for name, value in other.items():
                    same = torch.equal if isinstance(value, Tensor) and not value.is_floating_point() else _close
                    assert same(own[name], value), (count, name)


class _Struck:
    """A sampler of which one process hears a signal in its call."""

    def __init__(self, sampler: Any, strikes: bool) -> None:
        self.sampler, self.strikes = sampler, strikes

    def __call__(self, *given: Any) -> Generation:
        if self.strikes:
            os.kill(os.getpid(), signal.SIGUSR1)
        made: Generation = self.sampler(*given)
        return made


def _stopped(processes: Processes, struck: int) -> tuple[int, bool]:
    mini = Miniature(processes=processes)
    make = mini.maker(_Struck(mini.sampler(), processes.rank == struck))
    with STOP.listening(), STOP.between_polls():
        try:
            make(0, 5, [Sums().train_problem(0, place) for place in range(3)])
        except Stopped as stopped:
            return stopped.code, STOP.asked is not None
    return 0, False


@pytest.mark.parametrize("struck", [0, 1])
def test_a_signal_to_one_process_ends_the_rollout_in_all(struck: int) -> None:
    """Without an agreement the other one would wait for a share that never comes."""
    found = in_processes(2, _stopped, struck)
    assert found == [(REQUEUE, rank == struck) for rank in range(2)]


def _close(own: Any, other: Any) -> bool:
    """Equal; log-probs to 1e-5 nats, because a matrix product may round otherwise for another number of rows."""
    if isinstance(other, Tensor):
        return torch.allclose(own, other, rtol=0, atol=1e-5)
    if isinstance(other, dict) and other and not isinstance(next(iter(other.values())), list):
        return own.keys() == other.keys() and all(_close(own[key], value) for key, value in other.items())
    return own == (pytest.approx(other, abs=1e-5) if isinstance(other, float) else other)
