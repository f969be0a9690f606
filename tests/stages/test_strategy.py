"""The strategy of one GPU; tests/run/test_on_a_gpu.py trains with it on the pretend GPU."""

from __future__ import annotations

import lightning as L
import pytest
import torch
from torch import Tensor, nn

from r1_lightning.stages.strategy import StayingOnDevice, staying


class _Line(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def training_step(self, batch: Tensor, _: int) -> Tensor:
        return self.layer(batch).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.layer.parameters())


def test_a_cpu_takes_lightnings_own_and_a_gpu_the_one_that_stays() -> None:
    assert staying(torch.device("cpu")) == {}
    strategy = staying(torch.device("cuda", 1))["strategy"]
    assert isinstance(strategy, StayingOnDevice) and strategy.root_device == torch.device("cuda", 1)


def test_a_trained_model_is_not_moved_and_moments_are_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    strategy, module, moves = StayingOnDevice(device=torch.device("cpu")), _Line(), []
    monkeypatch.setattr(module, "cpu", lambda: moves.append("cpu") or module)
    trainer = L.Trainer(
        strategy=strategy,
        accelerator="cpu",
        max_steps=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, torch.ones(2, 3, 2))
    assert trainer.global_step == 2 and moves == []
    assert [dict(optimizer.state) for optimizer in trainer.optimizers] == [{}]
