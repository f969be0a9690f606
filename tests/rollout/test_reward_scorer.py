"""A reward model as a scorer: the numbers of training, whatever shares a call, and nothing left changed."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from r1_lightning.functional.advantages import group_relative_advantages
from r1_lightning.rollout import reward_scorer
from r1_lightning.rollout.preference_rows import collate_preferences, preference_rows
from r1_lightning.rollout.reward_scorer import RewardScorer
from r1_lightning.text.chat_template import PLAIN
from r1_lightning.types.text import LabelledResponse
from tests.model.test_reward_head import with_head
from tests.support.miniature import PAD, CharTokenizer

PAIRS = [("12+30=", " 42"), ("1+1=", " 2"), ("7-5=", " 2 ? ? ? ?"), ("90-81=", " 9 or 8".replace("or", "??"))]


def scorer(**settings: Any) -> RewardScorer:
    tokenizer: Any = CharTokenizer()
    return RewardScorer(with_head(), tokenizer, PLAIN, **{"max_positions": 64, **settings})


def test_scores_are_those_of_training_rows() -> None:
    tokenizer: Any = CharTokenizer()
    items = [LabelledResponse(question, response, True) for question, response in PAIRS]
    rows = [row for row in preference_rows(items, tokenizer, PLAIN, "whole") if row is not None]
    batch = collate_preferences(rows, 64, PAD)
    with torch.no_grad():
        expected = with_head().scores(batch.tokens, batch.ends)[0].tolist()
    assert scorer().score(PAIRS) == pytest.approx(expected, abs=1e-5)
    assert len({round(value, 3) for value in expected}) == len(PAIRS)


def test_neither_order_nor_company_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    together = scorer().score(PAIRS)
    assert scorer().score(PAIRS[::-1])[::-1] == pytest.approx(together, abs=1e-5)
    monkeypatch.setattr(reward_scorer, "TOKENS_PER_CALL", 1)  # a call for each
    assert scorer().score(PAIRS) == pytest.approx(together, abs=1e-5)
    assert scorer().score([]) == []


@pytest.mark.parametrize("tokens_per_call", [1, 24, 40, 96, 16_384])
def test_equal_texts_have_equal_scores_in_any_company(tokens_per_call: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """32 groups of 16 copies of a text each: apart, they would lie in calls of other widths and sizes, and round otherwise."""
    monkeypatch.setattr(reward_scorer, "TOKENS_PER_CALL", tokens_per_call)
    texts = [(f"{10 + i}+{i % 10}=", " " + str(10 + i + i % 10) + " ?" * (i % 7)) for i in range(32)]
    scores = torch.tensor(scorer().score([pair for pair in texts for _ in range(16)])).view(32, 16)
    assert torch.equal(scores, scores[:, :1].expand(32, 16))
    assert scores[:, 0].tolist() == scorer().score(texts)
    assert group_relative_advantages(scores).abs().max() == 0.0


def test_each_distinct_text_is_scored_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made, rows = scorer(max_positions=8), []
    scores_of = made.model.scores
    monkeypatch.setattr(made.model, "scores", lambda tokens, ends: (rows.append(len(ends)), scores_of(tokens, ends))[1])
    long = ["1+1=" + " " * 100, "9-9=" + " " * 100]  # only the last 8 positions are read: one text
    made.score([(question, " 222") for question in long] * 3 + PAIRS * 2)
    assert sum(rows) == 1 + len(PAIRS)


def test_of_a_long_text_the_end_is_read() -> None:
    question = "1+1=" + " " * 100
    short = scorer(max_positions=8)
    # 8 positions: EOS and the 7 characters before it, whatever stood further in front.
    assert short.score([(question, " 222")]) == pytest.approx(short.score([("9-9=" + question, " 222")]), abs=0)
    assert scorer().score([("   ", " 222")]) == pytest.approx(short.score([(question, " 222")]), abs=1e-5)


def test_nothing_trains_and_the_mode_is_evaluation() -> None:
    made = scorer()
    assert not made.model.training and not any(p.requires_grad for p in made.model.parameters())
    made.score(PAIRS)
    assert not made.model.training


def test_it_works_where_the_model_is() -> None:
    moved = scorer()
    moved.model.to("meta")
    with pytest.raises((RuntimeError, NotImplementedError)):  # on the meta device there are no numbers
        moved.score(PAIRS)
    assert next(moved.model.parameters()).device.type == "meta"
