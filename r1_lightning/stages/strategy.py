"""Lightning's strategy for one GPU of ours: the model stays on the GPU after training, where it is evaluated."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.strategies import SingleDeviceStrategy


class StayingOnDevice(SingleDeviceStrategy):
    """One GPU whose model stays there after training; Lightning would move it to the CPU."""

    def teardown(self) -> None:
        """Free the optimizer's state: the artefact is complete without it, or a checkpoint holds it."""
        for optimizer in self.optimizers:
            optimizer.state.clear()
        self.precision_plugin.teardown()
        assert self.accelerator is not None
        self.accelerator.teardown()
        self.checkpoint_io.teardown()


def staying(device: torch.device) -> dict[str, Any]:
    """The Trainer's `strategy` for a GPU; none for the CPU, where Lightning's own moves nothing."""
    return {} if device.type == "cpu" else {"strategy": StayingOnDevice(device=device)}
