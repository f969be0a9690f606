"""The base class of all stages: an optimizer with a schedule, gradient clipping, and the expert-bias update.

The auxiliary-loss-free balancing of DeepSeek-V3 belongs to the mathematics of a step, so it lives in the stage and not in a
callback: the load is summed over the micro-batches and processes of an optimizer step, and the biases move once, just before
that step.

Several processes take one step together. Each computes the loss of its share of the rows, with the denominators of all of them, so
losses, gradients and metrics are sums over processes, equal to those of one process. Metrics, loss and load are summed once per
step, and what is decided from them (a step that is skipped, the biases) is decided alike everywhere.

If a loss or gradient is not finite, the run ends before the optimizer takes the step or, if so configured, skips the step: no
weight, no optimizer state and no expert bias changes, and `train/skipped_step` is 1. Either way the weights stay those of the
last good step, and no checkpoint or artefact ever holds NaN.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from r1_lightning.artefacts.leftovers import CHECKPOINTS
from r1_lightning.functional.expert_balance import max_violation, updated_expert_bias
from r1_lightning.functional.schedules import WarmupCosine
from r1_lightning.functional.shards import whole
from r1_lightning.stages.sharded_state import put_aside, put_back
from r1_lightning.types.errors import InvalidInput, require, require_choice, require_int, require_number
from r1_lightning.types.processes import ONE, Processes
from r1_lightning.types.tensors import BackboneOutput, TokenBatch

# More skipped steps in a row than this mean that training has diverged, not that one batch was bad.
MAX_SKIPPED_IN_A_ROW = 10
SKIPPED = "skipped_in_a_row"  # key in a checkpoint


@dataclass(frozen=True)
class AdamWConfig:
    """AdamW with V3's betas (0.9, 0.95), decay on matrices only, warm-up and cosine to `final_lr_factor` of the peak.

    `max_grad_norm` clips the global gradient norm before each step.
    """

    lr: float
    beta1: float = 0.9
    beta2: float = 0.95
    weight_decay: float = 0.1
    max_grad_norm: float = 1.0
    warmup_steps: int = 0
    final_lr_factor: float = 1.0

    def __post_init__(self) -> None:
        require_number("optim.lr", self.lr, 0.0, open_minimum=True)
        require_number("optim.beta1", self.beta1, 0.0, 1.0)
        require_number("optim.beta2", self.beta2, 0.0, 1.0)
        for name in ("beta1", "beta2"):  # Adam's bias correction divides by 1 - beta^t, which is 0 at beta = 1
            require(getattr(self, name) < 1, f"optim.{name}", getattr(self, name), "it must be below 1")
        require_number("optim.weight_decay", self.weight_decay, 0.0)
        require_number("optim.max_grad_norm", self.max_grad_norm, 0.0, open_minimum=True)
        require_int("optim.warmup_steps", self.warmup_steps, 0)
        require_number("optim.final_lr_factor", self.final_lr_factor, 0.0, 1.0)

    def groups(self, module: nn.Module) -> list[dict[str, Any]]:
        """The parameters of `module` that train, matrices and others apart, each with its weight decay."""
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        return [
            {"params": [p for p in parameters if p.dim() > 1], "weight_decay": self.weight_decay},
            {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
        ]

    def build(self, module: nn.Module) -> torch.optim.Optimizer:
        """An optimizer over the parameters of `module` that train; its kernels are fused, on a GPU and on the CPU."""
        return torch.optim.AdamW(self.groups(module), lr=self.lr, betas=(self.beta1, self.beta2), fused=True)


class StageModule(L.LightningModule):
    """Trains a backbone for `max_steps` optimizer steps. Subclasses implement `training_step`.

    `bias_update_speed` 0 freezes the expert biases. `on_nonfinite` decides what happens if a loss or gradient is not finite:
    "stop" the run, or "skip" the step (at most `MAX_SKIPPED_IN_A_ROW` times in a row). `processes` are those that train together;
    their strategy averages gradients, as DDP and FSDP do.
    """

    backbone: Any  # an nn.Module that fits the Protocols `Backbone` and `Balanced`

    def __init__(
        self,
        backbone: nn.Module,
        optim: AdamWConfig,
        max_steps: int,
        bias_update_speed: float,
        on_nonfinite: str = "stop",
        processes: Processes = ONE,
    ) -> None:
        super().__init__()
        require_choice("stage.on_nonfinite", on_nonfinite, ("stop", "skip"))
        require_int("stage.max_steps", max_steps, 1)
        require_number("stage.bias_update_speed", bias_update_speed, 0.0)
        self.backbone = backbone
        self.optim = optim
        self.max_steps = max_steps
        self.bias_update_speed = bias_update_speed
        self.expert_load: Tensor | None = None
        self.step_loss: Tensor | None = None
        self.on_nonfinite = on_nonfinite
        self.processes = processes
        self.skipped_in_a_row = 0
        self.step_metrics: dict[str, Tensor] = {}

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = self.make_optimizer()
        factor = WarmupCosine(self.max_steps, self.optim.warmup_steps, self.optim.final_lr_factor)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def make_optimizer(self) -> torch.optim.Optimizer:
        """The optimizer of all that trains."""
        return self.optim.build(self.backbone)

    def clipped_norms(self, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
        """Clip the global norm of the whole step's gradients; returns it, as it was, by metric name."""
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        return {"train/grad_norm": whole(torch.nn.utils.clip_grad_norm_(parameters, self.optim.max_grad_norm))}

    def on_fit_start(self) -> None:
        found, made_for = self.trainer.world_size, self.processes.count
        if found != made_for:
            raise RuntimeError(f"{found} processes train a stage that was made for {made_for}: each would train alone")

    def backward(self, loss: Tensor, *arguments: Any, **keywords: Any) -> None:
        """Lightning's, of `loss` times the number of processes: their losses add up, but the strategy averages the gradients."""
        super().backward(loss * self.processes.count, *arguments, **keywords)

    def on_before_backward(self, loss: Tensor) -> None:
        """Add a micro-batch's loss to that of the current optimizer step, which is checked once per step."""
        self.step_loss = loss.detach() if self.step_loss is None else self.step_loss + loss.detach()

    def configure_gradient_clipping(self, optimizer: torch.optim.Optimizer, *_: Any, **__: Any) -> None:
        """Clip the global norm and balance the experts, or skip the step. Raises `InvalidInput` to stop the run."""
        # Lightning calls this once per optimizer step, after the last micro-batch: gradients, loss and load are the whole step's.
        norms = self.clipped_norms(optimizer)
        loss, metrics = self._step_totals()
        load, self.expert_load = self.expert_load, None
        self.log_dict(metrics, batch_size=1)
        is_finite = self._is_finite({**({} if loss is None else {"train/loss": loss}), **norms})
        is_skipped = self.nothing_to_learn() or not is_finite
        self.log("train/skipped_step", float(is_skipped))
        self.log(
            "optim/lr", optimizer.param_groups[-1]["lr"]
        )  # of this very step; Muon's matrices, the first, have another
        if is_skipped:
            for parameter in (p for group in optimizer.param_groups for p in group["params"]):
                parameter.grad = None  # the optimizer then changes neither the parameter nor its moments
            return
        self.log_dict(norms)
        if load is not None and load.numel() > 0:
            self._balance_experts(self.processes.sum(load))

    def _step_totals(self) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Return the step's loss and metrics, summed over all processes, and begin anew."""
        loss, self.step_loss = self.step_loss, None
        metrics, self.step_metrics = self.step_metrics, {}
        values = [*metrics.values(), *(() if loss is None else (loss,))]
        if not values:
            return None, {}
        device = values[-1].device
        totals = self.processes.sum(torch.stack([value.detach().float().to(device) for value in values])).unbind()
        return (None if loss is None else totals[-1]), dict(zip(metrics, totals, strict=False))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[SKIPPED] = self.skipped_in_a_row
        put_aside(checkpoint, self._checkpoints(), self.processes)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.skipped_in_a_row = checkpoint.get(SKIPPED, 0)
        put_back(checkpoint, self._checkpoints(), self, self.trainer.optimizers, self.processes)

    def _checkpoints(self) -> Path:
        return Path(self.trainer.default_root_dir) / CHECKPOINTS

    def nothing_to_learn(self) -> bool:
        """True if this optimizer step carries no learning signal and should be skipped."""
        return False

    def _is_finite(self, metrics: Mapping[str, Tensor]) -> bool:
        values = torch.stack([value.float() for value in metrics.values()]).tolist()  # one wait for the device
        bad = [f"{name}={value}" for name, value in zip(metrics, values, strict=True) if not math.isfinite(value)]
        self.skipped_in_a_row = self.skipped_in_a_row + 1 if bad else 0
        if bad and (self.on_nonfinite == "stop" or self.skipped_in_a_row > MAX_SKIPPED_IN_A_ROW):
            self.log_last_step(dict(zip(metrics, values, strict=True)))
            raise InvalidInput(
                f"{bad[0]} at step {self.global_step}: training has diverged and stops before this step; the same "
                f"command would come here again, so try a lower optim.lr than {self.optim.lr:g}"
            )
        if bad:
            rank_zero_warn(f"{bad[0]} at step {self.global_step}: this step is skipped (stage.on_nonfinite=skip)")
        return not bad

    def log_last_step(self, metrics: dict[str, float]) -> None:
        """Write to the run's files why this step does not end: Lightning logs steps that do."""
        for logger in self.loggers:
            logger.log_metrics(metrics, self.global_step)

    def count_load(self, output: BackboneOutput) -> None:
        """Add a training forward's expert load to the load of the current optimizer step."""
        self.expert_load = output.expert_load if self.expert_load is None else self.expert_load + output.expert_load

    def _balance_experts(self, load: Tensor) -> None:
        """Update the expert biases from the load of the whole optimizer step, of all processes; called once per step."""
        used = load.sum(-1) > 0  # MTP layers are idle where the stage trains without them
        self.log("moe/max_violation", max_violation(load[used]).mean())
        if self.bias_update_speed > 0 and (bias := self.backbone.expert_bias()).numel():
            load = F.pad(load, (0, 0, 0, len(bias) - len(load)))  # layers not run have no load
            self.backbone.set_expert_bias(updated_expert_bias(bias, load, self.bias_update_speed))

    def balance_loss(self, output: BackboneOutput, batch: TokenBatch) -> Tensor:
        """This process's part of the micro-batch's balance loss, a mean over the rows of all processes that hold a token."""
        rows = batch.is_token.any(1).sum().float()
        return output.balance_loss * (rows / self.processes.sum(rows).clamp(min=1))

    @property
    def micro_batches(self) -> int:
        """Number of batches per optimizer step; 1 without a Trainer, in a user's own loop."""
        return 1 if self._trainer is None else self.trainer.accumulate_grad_batches

    def add_metrics(self, metrics: Mapping[str, Tensor]) -> None:
        """Add a micro-batch's scalars to those of the current optimizer step.

        Logged is the sum over the step's micro-batches and processes, so a scalar is this one's part of it. Every process adds the
        same names in the same order.
        """
        for name, value in metrics.items():
            self.step_metrics[name] = self.step_metrics[name] + value if name in self.step_metrics else value
