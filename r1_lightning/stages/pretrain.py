"""Pre-training (V3 section 2.2 and 4.2): next-token loss + MTP loss + sequence-wise balance loss.

L = CE + (lambda / D) sum_k CE_k + sum over layers of alpha * L_Bal
"""

from __future__ import annotations

from torch import Tensor, nn

from r1_lightning.functional.cross_entropy import mtp_loss
from r1_lightning.stages.base import AdamWConfig, StageModule
from r1_lightning.stages.mtp import loss_ahead
from r1_lightning.types.errors import require_number
from r1_lightning.types.processes import ONE, Processes
from r1_lightning.types.tensors import TokenBatch


class PretrainModule(StageModule):
    """Trains on packed `TokenBatch`es; `mtp_loss_weight` is lambda (0.3, later 0.1, in V3)."""

    batch_type = TokenBatch

    def __init__(
        self,
        backbone: nn.Module,
        optim: AdamWConfig,
        max_steps: int,
        mtp_loss_weight: float = 0.3,
        bias_update_speed: float = 0.001,
        on_nonfinite: str = "stop",
        processes: Processes = ONE,
    ) -> None:
        super().__init__(backbone, optim, max_steps, bias_update_speed, on_nonfinite, processes)
        require_number("stage.mtp_loss_weight", mtp_loss_weight, 0.0)
        self.mtp_loss_weight = mtp_loss_weight

    def training_step(self, batch: TokenBatch, batch_idx: int) -> Tensor:
        output = self.backbone.hidden(batch, with_mtp=self.mtp_loss_weight > 0)
        self.count_load(output)
        hiddens = (output.hidden, *output.mtp)
        main, *ahead = (
            loss_ahead(self.backbone, h, batch, places, processes=self.processes) for places, h in enumerate(hiddens, 1)
        )
        mtp, balance = mtp_loss(ahead, self.mtp_loss_weight), self.balance_loss(output, batch)
        loss = main + mtp + balance
        metrics = {"train/loss": main, "train/mtp_loss": mtp, "train/balance_loss": balance}
        share = 1 / self.micro_batches  # the loss of a step is the mean over its micro-batches
        self.add_metrics({name: value.detach() * share for name, value in metrics.items()})
        return loss
