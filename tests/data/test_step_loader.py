"""Batch n is made for optimizer step n, when that step asks for it, also after a resume, under Lightning's own Trainer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor, nn

from r1_lightning.callbacks.checkpoint import ResumeCheckpoint
from r1_lightning.data.step_loader import StepLoader
from tests.support.miniature import trainer


class Steps:
    """A data set that notes at which `global_step` each item was made."""

    def __init__(self, length: int, clock: Any = None) -> None:
        self.length = length
        self.clock = clock or (lambda: None)
        self.made: list[tuple[int, Any]] = []
        self.restored: dict[str, Any] | None = None

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, step: int) -> Tensor:
        self.made.append((step, self.clock()))
        return torch.tensor([float(step)])

    def state_dict(self) -> dict[str, Any]:
        return {"items_made": len(self.made)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.restored = state


class OneWeight(L.LightningModule):
    """A stage of one weight; `seen` is what it was given, with `batch_idx` and the step it was given for."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.seen: list[tuple[int, int, int]] = []

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        self.seen.append((int(batch), batch_idx, self.global_step))
        return (self.weight - batch).square().sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


class Unsized:
    """The same steps without a length: what Lightning fetches ahead."""

    def __init__(self, dataset: Steps) -> None:
        self.dataset = dataset

    def __iter__(self) -> Iterator[Tensor]:
        return (self.dataset[step] for step in range(len(self.dataset)))


def test_items_come_in_order_one_for_each_request() -> None:
    dataset = Steps(3)
    loader = StepLoader(dataset)
    items = iter(loader)
    assert len(loader) == 3 and dataset.made == []
    assert int(next(items)) == 0 and [step for step, _ in dataset.made] == [0]
    assert [int(item) for item in items] == [1, 2]
    assert list(loader) == []  # every step is used up


def test_state_is_the_next_step_and_what_the_data_set_adds() -> None:
    loader = StepLoader(Steps(5))
    items = iter(loader)
    next(items), next(items)
    state = loader.state_dict()
    assert state == {"cursor": 2, "dataset": {"items_made": 2}}
    again = StepLoader(Steps(5))
    again.load_state_dict(state)
    assert [int(item) for item in again] == [2, 3, 4]
    assert again.dataset.restored == {"items_made": 2}


def test_under_a_trainer_each_item_is_made_at_the_step_that_uses_it(tmp_path: Path) -> None:
    fit = trainer(5, tmp_path)
    dataset, module = Steps(5, lambda: fit.global_step), OneWeight()
    fit.fit(module, StepLoader(dataset))
    assert dataset.made == [(step, step) for step in range(5)]
    assert module.seen == [(step, step, step) for step in range(5)]


def test_without_a_length_lightning_does_fetch_ahead(tmp_path: Path) -> None:
    """The trap itself, so that the test above is known to see it: item 1 is made before step 0 has been taken."""
    fit = trainer(5, tmp_path)
    dataset = Steps(5, lambda: fit.global_step)
    fit.fit(OneWeight(), Unsized(dataset))
    assert (1, 0) in dataset.made


@pytest.mark.parametrize("every_steps", [1, 2, 3])
def test_a_resumed_trainer_goes_on_with_the_very_next_step(tmp_path: Path, every_steps: int) -> None:
    def run(limit: int, resume: Path | None) -> tuple[Steps, OneWeight, L.Trainer]:
        fit = trainer(7, tmp_path, [ResumeCheckpoint(tmp_path, every_steps), StopAt(limit)])
        dataset, module = Steps(7, lambda: fit.global_step), OneWeight()
        fit.fit(module, StepLoader(dataset), ckpt_path=resume, weights_only=True if resume else None)
        return dataset, module, fit

    _, whole, _ = run(7, None)
    (tmp_path / "last.ckpt").unlink()
    run(5, None)
    dataset, module, fit = run(7, tmp_path / "last.ckpt")
    saved_at = 5 // every_steps * every_steps
    expected = list(range(saved_at, 7))
    assert dataset.made == [(step, step) for step in expected]  # none skipped, none repeated
    assert module.seen == [(step, step, step) for step in expected]
    assert fit.global_step == 7
    assert torch.equal(module.weight, whole.weight)


class StopAt(L.Callback):
    """Ends a fit after `limit` steps, as an interruption would."""

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        trainer.should_stop = trainer.global_step >= self.limit
