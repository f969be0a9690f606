"""Training a reward model (R1v2 section 3.1): the backbone and a scalar head learn which responses people or rules prefer.

R1's settings: batch 256, learning rate 6e-6, one epoch; helpful pairwise on the final summary, safety point-wise on the whole
response. `bias_update_speed` balances the load of the experts; 0 (the default) leaves the biases unchanged.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from r1_lightning.functional.preference_loss import PreferenceObjective
from r1_lightning.model.reward_head import RewardModel
from r1_lightning.stages.base import AdamWConfig, StageModule
from r1_lightning.types.errors import require
from r1_lightning.types.processes import ONE, Processes
from r1_lightning.types.tensors import PreferenceBatch


class RewardModelModule(StageModule):
    """Trains on `PreferenceBatch`es; wraps `backbone` in a `RewardModel`, which the artefact holds."""

    batch_type = PreferenceBatch

    def __init__(
        self,
        backbone: nn.Module,
        optim: AdamWConfig,
        objective: PreferenceObjective,
        max_steps: int,
        bias_update_speed: float = 0.0,
        on_nonfinite: str = "stop",
        processes: Processes = ONE,
    ) -> None:
        super().__init__(RewardModel(backbone), optim, max_steps, bias_update_speed, on_nonfinite, processes)
        allowed = "it must be a loss of scores: objective=helpful or objective=safety"
        require(isinstance(objective, PreferenceObjective), "stage.objective", type(objective).__name__, allowed)
        self.objective = objective

    def training_step(self, batch: PreferenceBatch, batch_idx: int) -> Tensor:
        name = type(self.objective).__name__
        fits = batch.is_paired or not self.objective.is_paired
        require(fits, "stage.objective", name, "it needs pairs, and the data are single responses with a label")
        scores, output = self.backbone.scores(batch.tokens, batch.ends)
        self.count_load(output)
        result = self.objective(scores, batch.labels, self.processes.sum(torch.tensor(len(scores))))
        share = 1 / self.micro_batches  # micro-batches have equal sizes, so the step's mean is the mean of theirs
        metrics = {"train/loss": result.loss.detach(), **result.metrics}
        self.add_metrics({key: value * share for key, value in metrics.items()})
        return result.loss
