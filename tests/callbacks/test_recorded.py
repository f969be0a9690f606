"""Records of a rollout's completions: token texts that make the completion, and numbers that are the rollout's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from r1_lightning.callbacks.recorded import MOST_TOGETHER, TokenTexts, records_of, rounded
from r1_lightning.rollout.results import Rollout
from r1_lightning.text.tokenizer import EOS_TOKEN, TextTokenizer, train_tokenizer
from tests.support.miniature import CharTokenizer, Miniature, ppo_rollouts

TEXT = "<think>17+25 是 四十二 😀 so the answer</think> <answer>42</answer>"


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return train_tokenizer(iter(["so the answer is so"] * 3), 280)


def test_the_texts_of_all_tokens_make_the_completion(tokenizer: TextTokenizer) -> None:
    ids = [*tokenizer.encode(TEXT), tokenizer.eos_id]
    texts = TokenTexts(tokenizer)(ids)
    assert len(texts) == len(ids) and "".join(texts) == TEXT + EOS_TOKEN and texts[-1] == EOS_TOKEN
    # 是 is three bytes in UTF-8, a token each here: it stands at the last of them.
    place = texts.index("是")
    assert texts[place - 2 : place] == ("", "") and tokenizer.decode(ids[place - 2 : place + 1]) == "是"


def test_bytes_that_make_no_character_are_shown_and_do_not_swallow_what_follows(tokenizer: TextTokenizer) -> None:
    first = tokenizer.encode("是")[0]  # the first of three bytes
    letter = tokenizer.encode("a")
    assert "".join(TokenTexts(tokenizer)([first, *letter])).endswith("a")
    assert TokenTexts(tokenizer)([first])[0] == "\ufffd"
    many = TokenTexts(tokenizer)([first] * 3 * MOST_TOGETHER)
    assert len(many) == 3 * MOST_TOGETHER and [text != "" for text in many].count(True) >= 3


class Words:
    """A tokenizer that drops the space before the first word of a text, as SentencePiece's do."""

    def encode(self, text: str) -> list[int]:
        return [0]

    def decode_batch(self, batch: Sequence[Sequence[int]], skip_special: bool = True) -> list[str]:
        assert not skip_special
        return ["".join((" 0", " the", " sum")[i] for i in ids).removeprefix(" ") for ids in batch]


def test_a_space_before_a_word_is_kept() -> None:
    assert TokenTexts(Words())([1, 2, 1]) == (" the", " sum", " the")


def rollout(miniature: Miniature) -> Rollout:
    return miniature.maker()(3, 6, [replace(p, metadata={}) for p in miniature.rollouts().dataset.problems(0)])


def test_numbers_are_the_rollouts_own() -> None:
    made = rollout(Miniature())
    rows, texts = [11, 0, 5], TokenTexts(CharTokenizer())
    scored = {5: torch.tensor([[-0.5, -1.00001], [2.0, float("nan")]])}
    records = records_of(made, rows, {"accuracy": 0.25}, texts, scored, 2)
    for record, row in zip(records, rows, strict=True):
        length = int(made.generation.completion_mask[row].sum())
        assert (record.step, record.source, record.prompt_index, record.sample) == (6, "rollout", row // 4, row % 4)
        assert record.completion == made.texts[row] and record.question == made.problems[row // 4].question
        assert record.prompt == record.question, "the template of these tests is the question"
        assert (record.reference, record.problem_id) == (
            made.problems[row // 4].answer,
            made.problems[row // 4].problem_id,
        )
        assert record.reward == pytest.approx(float(made.rewards[row // 4, row % 4]), abs=1e-6)
        (part,) = record.parts
        assert (part.name, part.score, part.weight, part.reason) == ("accuracy", record.reward, 0.25, "a hash")
        assert record.length == length and record.finished == bool(made.generation.finished[row])
        assert record.advantage == pytest.approx(float(made.advantages[row, 0]), abs=1e-6)
        tokens = record.tokens
        assert len(tokens.text) == min(length, 2) and record.completion.startswith("".join(tokens.text))
        assert tokens.sampler_logprob == pytest.approx(made.generation.sampler_logprobs[row, :2].tolist(), abs=6e-5)
        assert tokens.old_logprob is None, "without top-p it is the sampler's"
        assert tokens.advantage is None, "the completion's own"
    assert [record.tokens.policy_logprob for record in records] == [None, None, (-0.5, -1.0)]
    assert records[2].tokens.entropy == (2.0, None)


def test_advantages_per_token_and_an_older_policy_are_written_where_they_differ() -> None:
    miniature = Miniature(rollout=ppo_rollouts())
    made = rollout(Miniature())
    width = made.advantages.shape[1]
    ramp = torch.arange(width).float().repeat(12, 1)
    shifted = replace(made.generation, policy_logprobs=made.generation.sampler_logprobs - 1.0)
    (record,) = records_of(
        replace(made, advantages=ramp, generation=shifted), [0], {}, TokenTexts(CharTokenizer()), {}, 100
    )
    assert miniature.rollout.advantages is not None
    assert record.tokens.advantage == tuple(float(place) for place in range(record.length))
    assert record.advantage == pytest.approx((record.length - 1) / 2)  # the mean of 0 .. length - 1
    old, drawn = record.tokens.old_logprob, record.tokens.sampler_logprob
    assert old is not None and drawn is not None
    assert [a - b for a, b in zip(old, drawn, strict=True)] == pytest.approx([-1.0] * record.length, abs=2e-4)


def test_a_reward_that_is_no_number_is_none() -> None:
    made = rollout(Miniature())
    bad = replace(made, rewards=torch.full((3, 4), torch.nan), parts={"accuracy": torch.full((3, 4), torch.nan)})
    (record,) = records_of(bad, [0], {}, TokenTexts(CharTokenizer()), {}, 100)
    assert record.reward is None and record.parts[0].score is None


def test_numbers_are_rounded_and_finite() -> None:
    found = rounded(torch.tensor([-0.00001, 1.23456, torch.inf, torch.nan, -2.0]))
    assert found == (0.0, 1.2346, None, None, -2.0) and str(found[0]) == "0.0"
    assert str(rounded(torch.tensor([-0.1234, 12.5]))) == "(-0.1234, 12.5)", "no digits of single precision"
