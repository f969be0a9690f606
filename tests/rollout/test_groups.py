"""A rollout from prompts to advantages: who is judged for what, in which order, and what is logged, all by hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from r1_lightning.rewards.combine import WeightedSum
from r1_lightning.rollout.groups import RolloutConfig, RolloutMaker, completion_texts, judge, rollout_keys
from r1_lightning.text.chat_template import ChatTemplate
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.tensors import Generation
from r1_lightning.types.text import Completion, Problem, Verdict
from tests.rollout.fakes import generation_of, rollout_of

SPECIAL = 3  # ids below are special: padding 0, start 1, end 2
EOS = 2


class Letters:
    """A tokenizer whose token 3 is `a`, 4 is `b`, ...; padding shows as `_`, the start as `^`, the end as `$`."""

    eos_id, pad_id = EOS, 0

    def encode(self, text: str) -> list[int]:
        return [ord(letter) - ord("a") + SPECIAL for letter in text]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.encode(text) for text in texts]

    def decode_batch(self, batch: Sequence[Sequence[int]], skip_special: bool = True) -> list[str]:
        def shown(token: int) -> str:
            if token >= SPECIAL:
                return chr(token - SPECIAL + ord("a"))
            return "" if skip_special else "_^$"[token]

        return ["".join(map(shown, ids)) for ids in batch]


@dataclass
class Matches:
    """Scores 1 where the text is the answer; remembers everything it was asked."""

    name: str = "accuracy"

    def __post_init__(self) -> None:
        self.seen: list[tuple[str, Completion]] = []

    def __call__(self, problem: Problem, completion: Completion) -> Verdict:
        self.seen.append((problem.problem_id, completion))
        return Verdict(float(completion.text == problem.answer), "")


@dataclass
class Short:
    """Scores a tenth of a point for each token fewer than ten."""

    name: str = "brevity"

    def __call__(self, problem: Problem, completion: Completion) -> Verdict:
        return Verdict((10 - completion.n_tokens) / 10, "")


PROBLEMS = [Problem("x", "a", "p0"), Problem("yz", "bc", "p1")]
A, B, C, D = range(SPECIAL, SPECIAL + 4)
COMPLETIONS = [[A, EOS], [B, EOS], [A, A, A], [B, C, EOS], [B, C, EOS], [D]]  # three of p0, three of p1
FINISHED = [True, True, False, True, True, False]
GENERATION = generation_of(COMPLETIONS, FINISHED)
TEXTS = ["a", "b", "aaa", "bc", "bc", "d"]


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


def test_judging_keeps_order_and_gives_each_completion_its_own_problem() -> None:
    """accuracy + 2 * brevity; brevity is 0.8 for 2 tokens, 0.7 for 3 and 0.9 for 1."""
    accuracy = Matches()
    reward = WeightedSum([accuracy, Short()], weights=[1.0, 2.0])
    rewards, parts = judge(PROBLEMS, TEXTS, GENERATION, reward, group_size=3)
    assert parts["accuracy"].tolist() == [[1, 0, 0], [1, 1, 0]]
    torch.testing.assert_close(parts["brevity"], torch.tensor([[0.8, 0.8, 0.7], [0.7, 0.7, 0.9]]))
    torch.testing.assert_close(rewards, torch.tensor([[2.6, 1.6, 1.4], [2.4, 2.4, 1.8]]))
    assert [problem for problem, _ in accuracy.seen] == ["p0", "p0", "p0", "p1", "p1", "p1"]
    expected = [Completion(t, len(c), f) for t, c, f in zip(TEXTS, COMPLETIONS, FINISHED, strict=True)]
    assert [completion for _, completion in accuracy.seen] == expected
    assert type(expected[0].n_tokens) is type(accuracy.seen[0][1].n_tokens) is int


def test_whole_numbers_are_scores_like_any_other() -> None:
    """A reward may say `Verdict(1, "")`: the metrics are means of real numbers all the same."""
    reward = WeightedSum([Matches()])
    reward.rewards = (lambda problem, completion: Verdict(int(completion.text == problem.answer), ""),)
    reward.rewards[0].name = "accuracy"  # type: ignore[attr-defined]
    rewards, parts = judge(PROBLEMS, TEXTS, GENERATION, reward, 3)
    assert rewards.dtype == parts["accuracy"].dtype == torch.float32
    assert float(parts["accuracy"].mean()) == 0.5


def test_a_score_that_is_no_number_stops_the_rollout_by_name() -> None:
    reward = WeightedSum([Matches()])
    reward.rewards = (lambda problem, completion: Verdict(float("nan"), ""),)
    reward.rewards[0].name = "accuracy"  # type: ignore[attr-defined]
    with pytest.raises(InvalidInput, match="reward accuracy: score=nan"):
        judge(PROBLEMS, TEXTS, GENERATION, reward, 3)


class Generator:
    """A `GenerateFn` that gives GENERATION and remembers what it was asked for."""

    def __call__(self, prompts: Sequence[Sequence[int]], copies: int, keys: Tensor) -> Generation:
        self.prompts, self.copies, self.keys = prompts, copies, keys
        return GENERATION


def test_a_rollout_by_hand() -> None:
    """Accuracies 1 0 0 and 1 1 0: means 1/3 and 2/3, population std sqrt(2)/3 both, so advantages of 1.4142 and 0.7071."""
    generator = Generator()
    config = RolloutConfig(prompts_per_rollout=2, group_size=3, max_new_tokens=3, row_tokens=16)
    make = RolloutMaker(generator, Letters(), ChatTemplate("t", "q", "e"), WeightedSum([Matches()]), config)
    rollout = make(number=5, policy_version=40, problems=PROBLEMS)
    letters = Letters()
    assert generator.prompts == [letters.encode("qxe"), letters.encode("qyze")] == rollout.prompts
    assert generator.copies == 3
    assert generator.keys.tolist() == rollout_keys(5, 2, 3).tolist()
    assert (rollout.number, rollout.policy_version, rollout.texts) == (5, 40, TEXTS)
    assert rollout.rewards.tolist() == [[1, 0, 0], [1, 1, 0]]
    high, low = 2**0.5, 0.5**0.5
    by_completion = torch.tensor([high, -low, -low, low, low, -high])[:, None]
    torch.testing.assert_close(rollout.advantages, by_completion * GENERATION.completion_mask)
    assert rollout.zero_variance_fraction == 0.0


def test_what_is_logged_by_hand() -> None:
    """Lengths 2, 2, 3, 3, 3, 1; four of six finished; of "我ok", "ok", "", "我", "1+1", "ok 好" the first and last mix.

    Policy log-probs -(row + place / 100): -(0 * 2 + 1 * 2 + 2 * 3 + 3 * 3 + 4 * 3 + 5 * 1 + 0.11) = -34.11 over 14 tokens.
    """
    rewards = torch.tensor([[1.0, 0.0, 2.0], [1.0, 1.0, 1.0]])
    rollout = dataclasses.replace(
        rollout_of([[A], [B]], COMPLETIONS, rewards),
        generation=GENERATION,
        texts=["我ok", "ok", "", "我", "1+1", "ok 好"],
        parts={"accuracy": rewards / 2, "format": torch.ones(2, 3)},
    )
    assert rollout.summary() == pytest.approx(
        {
            "rollout/reward_mean": 1.0,
            "rollout/accuracy_mean": 0.5,
            "rollout/format_mean": 1.0,
            "rollout/completion_tokens_mean": 14 / 6,
            "rollout/finished_fraction": 4 / 6,
            "rollout/policy_logprob_mean": -34.11 / 14,
            "rollout/sampler_logprob_mean": -34.11 / 28,
            "rollout/zero_variance_fraction": 0.5,
            "rollout/mixed_language_fraction": 2 / 6,
        }
    )


def test_groups_without_variance_teach_nothing() -> None:
    rewards = torch.tensor([[1.0, 1.0], [0.0, 0.0], [0.0, 1.0], [0.3, 0.3]])
    assert rollout_of([[A]] * 4, [[EOS]] * 8, rewards).zero_variance_fraction == 0.75


# --------------------------------------------------------------------------------------------------------- the configuration


def test_the_defaults_are_r1_zeros_shape() -> None:
    config = RolloutConfig()
    assert (config.prompts_per_rollout, config.group_size) == (32, 16)
    sampling = RolloutConfig(sampling_temperature=0.7, top_p=0.8, max_new_tokens=9).sampling
    assert (sampling.sampling_temperature, sampling.top_p, sampling.max_new_tokens) == (0.7, 0.8, 9)


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
    ],
)
def test_bad_fields_are_named(field: str, value: object, allowed: str) -> None:
    with pytest.raises(InvalidInput, match=rf"^rollout\.{field}={value!r} is not allowed: .*{allowed}"):
        RolloutConfig(**{field: value})


def test_minibatches_must_share_out_all_rows() -> None:
    assert RolloutConfig(3, 4, minibatches_per_rollout=6).minibatches_per_rollout == 6
    with pytest.raises(InvalidInput, match="minibatches_per_rollout=5"):
        RolloutConfig(3, 4, minibatches_per_rollout=5)
