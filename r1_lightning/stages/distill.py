"""Distillation: a student learns a frozen teacher's distribution of every token (Hinton et al. 2015; GKD, Agarwal et al. 2023).

The data module provides the text: given text, scored by the teacher at every step or from a cache (`data.teacher_data`), or text
that the student samples (`data.on_policy_data`). The objective compares the two distributions (`functional.distillation`). R1
distilled by plain SFT on its own samples (section 4): that is `alpha` 0, and needs no teacher.

The MTP modules are not trained. `bias_update_speed` balances the load of the experts (0, the default, leaves the biases unchanged).
"""

from __future__ import annotations

from torch import Tensor, nn

from r1_lightning.functional.distillation import Distillation, StudentTokens
from r1_lightning.rollout.teacher import Teacher, target_index
from r1_lightning.stages.base import AdamWConfig, StageModule
from r1_lightning.types.processes import ONE, Processes
from r1_lightning.types.tensors import DistillBatch


class DistillModule(StageModule):
    """Trains on `DistillBatch`es. The `teacher` is not a part of the module: it is neither trained nor saved in checkpoints."""

    batch_type = DistillBatch

    def __init__(
        self,
        backbone: nn.Module,
        teacher: Teacher,
        optim: AdamWConfig,
        objective: Distillation,
        max_steps: int,
        bias_update_speed: float = 0.0,
        on_nonfinite: str = "stop",
        processes: Processes = ONE,
    ) -> None:
        super().__init__(backbone, optim, max_steps, bias_update_speed, on_nonfinite, processes)
        self.teacher = teacher
        self.objective = objective

    def training_step(self, batch: DistillBatch, batch_idx: int) -> Tensor:
        output = self.backbone.hidden(batch.tokens, with_mtp=False)
        self.count_load(output)
        index_C = target_index(batch)
        student = StudentTokens(
            hidden_ND=output.hidden.flatten(0, 1).index_select(0, index_C - 1),
            targets_N=batch.tokens.token_ids.flatten().index_select(0, index_C),
            unembed=self.backbone.unembed,
            vocabulary=self.teacher.vocabulary,
            n_tokens=batch.n_tokens,
            is_on_policy=batch.is_on_policy,
        )
        result = self.objective(student, self.teacher.tokens(batch))
        share = self.processes.is_main / self.micro_batches  # the same everywhere, so it counts once
        self.add_metrics({"train/loss": result.loss.detach(), **result.metrics})
        self.add_metrics({"train/on_policy": result.loss.new_tensor(batch.is_on_policy).detach() * share})
        # Lightning divides by the number of micro-batches; the batch's own denominator has divided already.
        return result.loss * self.micro_batches
