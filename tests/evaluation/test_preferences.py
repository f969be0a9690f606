"""Held-out pairs: accuracies and margins by hand, intervals, and a model that is left as it was."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from r1_lightning.evaluation.preferences import (
    PolicyEvaluationConfig,
    PreferenceEvaluationConfig,
    PreferenceEvaluator,
    implicit_rewards,
)
from r1_lightning.rollout.preference_rows import PreferenceRow
from r1_lightning.types.errors import InvalidInput, Stopped
from r1_lightning.types.processes import Processes
from r1_lightning.types.stopping import REQUEUE, STOP
from r1_lightning.types.tensors import PreferenceBatch, TokenBatch
from tests.support.processes import in_processes


class FirstToken(nn.Module):
    """Scores a text by the id of its last token but one, minus 10: EOS is 1."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.modes: list[bool] = []

    def scores(self, tokens: TokenBatch, ends_S: Tensor) -> tuple[Tensor, None]:
        self.modes.append(self.training)
        return tokens.token_ids.flatten()[ends_S - 1].float() - 10, None


def pair(chosen: int, rejected: int) -> PreferenceRow:
    return PreferenceRow(((3, chosen, 1), (3, 3, rejected, 1)), (1.0, 0.0))


def evaluator(rows: list[PreferenceRow], **settings: Any) -> PreferenceEvaluator:
    return PreferenceEvaluator(rows, PreferenceEvaluationConfig(**settings), row_tokens=16, pad_id=0)


def test_pairs_by_hand() -> None:
    # Margins 5, -2, 0, 1: two wins, a loss and a tie of four: 2.5 / 4; mean margin 1.
    rows = [pair(15, 10), pair(10, 12), pair(11, 11), pair(13, 12)]
    measures = evaluator(rows)(FirstToken())
    assert {name: measure.value for name, measure in measures.items()} == {
        "pair_accuracy": 0.625,
        "margin": 1.0,
        "good_tokens_mean": 3.0,
        "other_tokens_mean": 4.0,
    }
    interval = measures["pair_accuracy"].interval
    assert 0.0 <= interval.low < 0.625 < interval.high <= 1.0


def test_single_responses_by_hand() -> None:
    # Scores 5, 0, -3, 2 with labels good, good, bad, bad: above 0 is called good, so right, wrong, right, wrong.
    rows = [PreferenceRow(((3, token, 1),), (label,)) for token, label in ((15, 1.0), (10, 1.0), (7, 0.0), (12, 0.0))]
    measures = evaluator(rows)(FirstToken())
    assert measures["accuracy"].value == 0.5 and measures["score_mean"].value == 1.0
    assert "other_tokens_mean" not in evaluator(rows[:2])(FirstToken())


class Stage(nn.Module):
    """A stage whose policy is rewarded for the first token of a response, which follows a prompt of one token."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def rewards(self, batch: PreferenceBatch) -> Tensor:
        ids, sequences = batch.tokens.token_ids.flatten(), batch.sequence_ids.flatten().tolist()
        return torch.stack([ids[sequences.index(number)] for number in range(len(batch.ends))]).float()


def test_a_policy_is_asked_for_its_implicit_rewards() -> None:
    rows = [
        PreferenceRow(((3, 15, 7, 1), (3, 10, 9, 1)), (1.0, 0.0), 1),
        PreferenceRow(((3, 4, 1), (3, 6, 1)), (1.0, 0.0), 1),
    ]
    settings = PolicyEvaluationConfig(pairs=2, pairs_per_batch=1)
    made = PreferenceEvaluator(rows, settings.of_pairs, row_tokens=16, pad_id=0, score=implicit_rewards)
    assert made.scores(Stage()).tolist() == [15.0, 10.0, 4.0, 6.0]
    assert {name: made(Stage())[name].value for name in ("pair_accuracy", "margin")} == {
        "pair_accuracy": 0.5,
        "margin": 1.5,
    }


@pytest.mark.parametrize("size", [1, 3, 64])
def test_in_any_number_of_calls(size: int) -> None:
    rows = [pair(10 + number, 12) for number in range(7)]
    model, told = FirstToken(), []
    made = evaluator(rows, items_per_batch=size)
    assert made.scores(model, told.append).tolist() == [value for n in range(7) for value in (float(n), 2.0)]
    assert sum(told) == 7 and len(told) == -(-7 // size)
    assert set(model.modes) == {False} and model.training, "evaluation mode, and back"


@pytest.mark.parametrize("name", ["items", "items_per_batch"])
def test_bad_settings(name: str) -> None:
    with pytest.raises(InvalidInput, match=f"stage.evaluation.{name}=0"):
        PreferenceEvaluationConfig(**{name: 0})


@pytest.mark.parametrize("name", ["pairs", "pairs_per_batch", "problems"])
def test_bad_settings_of_a_policy(name: str) -> None:
    with pytest.raises(InvalidInput, match=f"stage.evaluation.{name}=0"):
        PolicyEvaluationConfig(**{name: 0})


def _scored(processes: Processes, rows: list[PreferenceRow]) -> tuple[Any, int]:
    model = FirstToken()
    return replace(evaluator(rows, items_per_batch=2), processes=processes)(model), len(model.modes)


def test_several_processes_score_as_one() -> None:
    """Seven pairs are four batches, and each process has a forward for each, though the last batch is a single pair."""
    rows = [pair(15 + number, 10) for number in range(7)]
    ((expected, batches),) = in_processes(1, _scored, rows)
    assert batches == 4
    for count in (2, 3):
        assert in_processes(count, _scored, rows) == [(expected, 4)] * count


def _stopped(processes: Processes, rows: list[PreferenceRow]) -> int:
    """A signal reaches the last process in its second forward."""
    model = FirstToken()

    def struck(_: int) -> None:
        if len(model.modes) == 2 and processes.rank == processes.count - 1:
            STOP.asked = Stopped("interrupted", REQUEUE)

    with pytest.raises(Stopped) as stopped:
        replace(evaluator(rows, items_per_batch=2), processes=processes)(model, struck)
    STOP.asked = None
    return len(model.modes) if stopped.value.code == REQUEUE else -1


def test_a_signal_in_one_process_ends_all_before_the_same_forward() -> None:
    """A forward of a model in shares waits for all processes: one that left alone would leave the others in it."""
    rows = [pair(15 + number, 10) for number in range(7)]
    for count in (1, 2):
        assert in_processes(count, _stopped, rows) == [2] * count
