"""Supervised fine-tuning: next-token loss on completions only, and the MTP loss beside it.

    L = CE + (lambda / D) sum_k CE_k + sum over layers of alpha * L_Bal          (V3 eq 23-25, on completion tokens and EOS)

Each CE is the mean over the completion tokens of the whole optimizer step, across micro-batches and processes, so a completion's
weight is its number of tokens. DeepSeek-R1 uses SFT for its cold start, its second fine-tuning and its students (R1v2 B.4.2 and
B.4.3); the papers do not say whether prompts are masked, how MTP trains or whether expert biases move. Here prompts are masked, MTP
goes on learning (`mtp_loss_weight`), and biases stay unchanged unless `bias_update_speed` is set.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from r1_lightning.functional.cross_entropy import mtp_loss
from r1_lightning.functional.masking import targets_ahead
from r1_lightning.stages.base import AdamWConfig, StageModule
from r1_lightning.stages.mtp import loss_ahead
from r1_lightning.types.errors import require_number
from r1_lightning.types.processes import ONE, Processes
from r1_lightning.types.tensors import ChatBatch

# Shape legend: B rows, T positions, D model width, N tokens.


class SFTModule(StageModule):
    """Trains on `ChatBatch`es; `mtp_loss_weight` is lambda, and 0 does not train the MTP modules."""

    batch_type = ChatBatch

    def __init__(
        self,
        backbone: nn.Module,
        optim: AdamWConfig,
        max_steps: int,
        mtp_loss_weight: float = 0.1,
        bias_update_speed: float = 0.0,
        on_nonfinite: str = "stop",
        processes: Processes = ONE,
    ) -> None:
        super().__init__(backbone, optim, max_steps, bias_update_speed, on_nonfinite, processes)
        require_number("stage.mtp_loss_weight", mtp_loss_weight, 0.0)
        self.mtp_loss_weight = mtp_loss_weight

    def training_step(self, batch: ChatBatch, batch_idx: int) -> Tensor:
        output = self.backbone.hidden(batch.tokens, with_mtp=self.mtp_loss_weight > 0)
        self.count_load(output)
        main, *ahead = (
            self._loss(hidden, batch, places) for places, hidden in enumerate((output.hidden, *output.mtp), 1)
        )
        mtp = mtp_loss(ahead, self.mtp_loss_weight)
        balance = (
            self.balance_loss(output, batch.tokens) / self.micro_batches
        )  # a mean over rows, and so over micro-batches
        metrics = {"train/loss": main, "train/mtp_loss": mtp, "train/balance_loss": balance}
        self.add_metrics({name: value.detach() for name, value in metrics.items()})
        self.add_metrics(self._counts(output.hidden, batch))
        # Lightning divides by the number of micro-batches; the step's own denominators have divided already.
        return (main + mtp + balance) * self.micro_batches

    def _loss(self, hidden_BTD: Tensor, batch: ChatBatch, places: int) -> Tensor:
        """This micro-batch's part of the step's mean loss of predicting completion tokens `places` ahead."""
        return loss_ahead(
            self.backbone, hidden_BTD, batch.tokens, places, batch.completion_mask, batch.n_targets(places)
        )

    @torch.no_grad()
    def _counts(self, hidden_BTD: Tensor, batch: ChatBatch) -> dict[str, Tensor]:
        """This micro-batch's summands of the step's token accuracy (argmax) and number of completion tokens."""
        targets, has_target = targets_ahead(batch.tokens.token_ids, batch.tokens.document_ids, 1)
        wanted, _ = targets_ahead(batch.completion_mask.long(), batch.tokens.document_ids, 1)
        chosen = has_target & wanted.bool()
        hits = (self.backbone.likeliest_tokens(hidden_BTD[chosen]) == targets[chosen]).sum()
        return {
            "train/token_accuracy": hits.float() / batch.n_targets(1).clamp(min=1),
            "train/completion_tokens": chosen.sum().float(),
        }
