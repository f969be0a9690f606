"""Evaluates a reward model, or a policy as one: how often it prefers the better of two held-out responses, with a 95 % interval."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from r1_lightning.evaluation.metrics import Measure
from r1_lightning.evaluation.runner import EvaluationConfig
from r1_lightning.functional.intervals import bootstrap_mean_interval
from r1_lightning.functional.preference_loss import margins, wins
from r1_lightning.rollout.preference_rows import PreferenceRow, collate_share
from r1_lightning.rollout.sampler import device_of
from r1_lightning.types.errors import require_int
from r1_lightning.types.processes import ONE, Processes
from r1_lightning.types.stopping import STOP
from r1_lightning.types.tensors import PreferenceBatch


@dataclass(frozen=True)
class PreferenceEvaluationConfig:
    """Settings: evaluate at most `items` held-out pairs or labelled responses, `items_per_batch` per forward pass."""

    items: int = 500
    items_per_batch: int = 64

    def __post_init__(self) -> None:
        require_int("stage.evaluation.items", self.items, 1)
        require_int("stage.evaluation.items_per_batch", self.items_per_batch, 1)


@dataclass(frozen=True)
class PolicyEvaluationConfig(EvaluationConfig):
    """Settings for a policy that learns from pairs: problems, and its implicit reward on at most `pairs` held-out pairs."""

    pairs: int = 500
    pairs_per_batch: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        require_int("stage.evaluation.pairs", self.pairs, 1)
        require_int("stage.evaluation.pairs_per_batch", self.pairs_per_batch, 1)

    @property
    def of_pairs(self) -> PreferenceEvaluationConfig:
        return PreferenceEvaluationConfig(self.pairs, self.pairs_per_batch)


def head_scores(model: Any, batch: PreferenceBatch) -> Tensor:
    """The scores S of a reward model."""
    scores_S: Tensor = model.scores(batch.tokens, batch.ends)[0]
    return scores_S


def implicit_rewards(stage: Any, batch: PreferenceBatch) -> Tensor:
    """The rewards S of the policy of a stage with a reference (`stages.dpo.DPOModule`)."""
    rewards_S: Tensor = stage.rewards(batch)
    return rewards_S


@dataclass(frozen=True)
class PreferenceEvaluator:
    """Measures a model on `rows`, either all pairs or all single responses; each process scores its share of them.

    `score` asks the model for the scores S of a batch.
    """

    rows: Sequence[PreferenceRow]
    config: PreferenceEvaluationConfig
    row_tokens: int
    pad_id: int
    processes: Processes = ONE
    score: Callable[[Any, PreferenceBatch], Tensor] = head_scores

    def __call__(self, model: Any, progress: Callable[[int], Any] | None = None) -> dict[str, Measure]:
        """Return the measures by name.

        Pairs: pair_accuracy (a tie counts half) and margin. Single responses: accuracy (a score above 0 predicts good) and
        score_mean. Both: the mean lengths of good and other responses in tokens, prompt included.
        """
        scores_S = self.scores(model, progress)
        labels_S = torch.tensor([label for row in self.rows for label in row.labels])
        if len(self.rows[0].documents) == 2:
            margins_P = margins(scores_S)
            measures = {"pair_accuracy": _mean(wins(margins_P)), "margin": _mean(margins_P)}
        else:
            right_S = (scores_S > 0) == (labels_S > 0.5)
            measures = {"accuracy": _mean(right_S.float()), "score_mean": _mean(scores_S)}
        lengths_S = torch.tensor([float(len(document)) for row in self.rows for document in row.documents])
        for name, label in (("good_tokens_mean", 1.0), ("other_tokens_mean", 0.0)):
            chosen = lengths_S[labels_S == label]
            if len(chosen):
                measures[name] = _mean(chosen)
        return measures

    @torch.no_grad()
    def scores(self, model: Any, progress: Callable[[int], Any] | None = None) -> Tensor:
        """Return the scores S of all documents in row order; the model is in evaluation mode meanwhile."""
        was_training = model.training
        model.eval()
        found = self._share(model, progress)
        model.train(was_training)
        # All processes' items of the first batch in order of rank, then those of the second.
        return torch.cat([part for parts in zip(*self.processes.collect(found), strict=True) for part in parts])

    def _share(self, model: Any, progress: Callable[[int], Any] | None) -> list[Tensor]:
        """Return the scores of our own items of each batch: as many forwards as any other process.

        A forward of a model in shares gathers its weights from all processes, so they agree before each one whether to stop.
        """
        found = []
        for start in range(0, len(self.rows), self.config.items_per_batch):
            STOP.together(STOP.poll, self.processes.any)
            rows = self.rows[start : start + self.config.items_per_batch]
            batch = collate_share(rows, self.processes, self.row_tokens, self.pad_id).to(device_of(model))
            found.append(self.score(model, batch).cpu())
            if progress:
                progress(len(rows))
        return found


def _mean(values: Tensor) -> Measure:
    numbers = values.double().numpy()
    return Measure(float(numbers.mean()), bootstrap_mean_interval(numbers))
