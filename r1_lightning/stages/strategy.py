"""Lightning's strategy for one GPU of ours: the model stays on the GPU after training, where it is evaluated."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.strategies import SingleDeviceStrategy, Strategy


class StayingOnDevice(SingleDeviceStrategy):
    """One GPU whose model stays there after training; Lightning would move it to the CPU."""

    def teardown(self) -> None:
        """End training without moving the model."""
        end_in_place(self)


def end_in_place(strategy: Strategy) -> None:
    """Free the optimizer's state, which the artefact or a checkpoint makes superfluous, and leave the model on its device."""
    for optimizer in strategy.optimizers:
        optimizer.state.clear()
    strategy.precision_plugin.teardown()
    assert strategy.accelerator is not None
    strategy.accelerator.teardown()
    strategy.checkpoint_io.teardown()


def staying(device: torch.device) -> dict[str, Any]:
    """The Trainer's `strategy` for a GPU; none for the CPU, where Lightning's own moves nothing."""
    return {} if device.type == "cpu" else {"strategy": StayingOnDevice(device=device)}
