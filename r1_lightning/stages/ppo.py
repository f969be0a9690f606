"""PPO (Schulman et al. 2017; R1v2 appendix A.3): GRPO's stage with a value model in place of the comparison within a group.

Everything else is GRPO's: rollouts, packing, the objective, the reference and its refreshes. What differs:

- **Advantages** come from `rollout.advantages` (`rollout/value_baseline.py`): GAE over the value model's values, once per rollout.
- **The KL** to the reference is a penalty of each token's reward (`rollout.advantages.kl_coef`), as in InstructGPT and DeepSeekMath
  eq 2, or a term of the loss (`stage.objective.kl_coef`), as in GRPO, or both. The reference is asked once per rollout.
- **The value model** is a network of its own, of the policy's shape, with a scalar head (`model/reward_head.py`) that reads the
  state before each token. It begins as a copy of the policy with a head of zeros. (InstructGPT begins from its reward model; rules
  have none. DeepSeekMath says only that it is another model of comparable size.) It trains in the same steps, with its own learning
  rate and its own clipping of the gradient, so the policy's step is that of GRPO given the same advantages.

The artefact is the policy alone, in the form of every other stage. Checkpoints hold the value model, too. Its expert biases never
change.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn

from r1_lightning.functional.policy_loss import Objective
from r1_lightning.functional.value_loss import clipped_value_loss
from r1_lightning.model.reward_head import RewardModel
from r1_lightning.rollout.completion_scores import completion_scores
from r1_lightning.rollout.groups import RolloutConfig
from r1_lightning.rollout.results import Samples
from r1_lightning.rollout.sampler import device_of
from r1_lightning.rollout.scoring import completion_index
from r1_lightning.rollout.value_baseline import ValueBaseline
from r1_lightning.stages.base import AdamWConfig
from r1_lightning.stages.grpo import GRPOModule
from r1_lightning.stages.reference import in_evaluation_mode, reference_of
from r1_lightning.text.tokenizer import TextTokenizer
from r1_lightning.types.errors import require, require_number
from r1_lightning.types.processes import ONE, Processes
from r1_lightning.types.tensors import GRPOBatch
from r1_lightning.types.value_targets import ValueTargets


class PPOModule(GRPOModule):
    """Trains policy and value model on `GRPOBatch`es with `targets`, which `rollout.advantages`, a `ValueBaseline`, makes.

    `value_lr` is the value model's learning rate (its schedule is the policy's), `value_clip_eps` how far its loss lets a value go
    from what it was at the rollout, None for any distance. The other settings are GRPO's, without `on_zero_variance`: groups are
    not compared.
    """

    trains_value_model = True

    def __init__(
        self,
        backbone: nn.Module,
        optim: AdamWConfig,
        objective: Objective,
        max_steps: int,
        rollout: RolloutConfig,
        tokenizer: TextTokenizer,
        value_lr: float,
        value_clip_eps: float | None = 0.2,
        sampling_temperature: float = 1.0,
        reference_refresh_steps: int = 400,
        router: str = "frozen",
        bias_update_speed: float = 0.001,
        mtp_loss_weight: float = 0.0,
        on_nonfinite: str = "stop",
        mtp_trunk: str = "trained",
        reference_device: torch.device | None = None,
        processes: Processes = ONE,
    ) -> None:
        require_number("stage.value_lr", value_lr, 0.0, open_minimum=True)
        if value_clip_eps is not None:
            require_number("stage.value_clip_eps", value_clip_eps, 0.0, open_minimum=True)
        is_token_level = "PPO has an advantage, and so a ratio, per token, as TokenLevelGRPO has"
        require(objective.level == "token", "stage.objective", type(objective).__name__, is_token_level)
        super().__init__(
            backbone,
            optim,
            objective,
            max_steps,
            sampling_temperature,
            reference_refresh_steps,
            router,
            bias_update_speed,
            mtp_loss_weight,
            on_nonfinite,
            mtp_trunk=mtp_trunk,
            reference_device=reference_device if objective.needs_reference else None,
            processes=processes,
        )
        estimator = rollout.advantages
        assert isinstance(estimator, ValueBaseline), "`run/checks/rewards.py` has refused all others"
        if estimator.kl_coef > 0 and not objective.needs_reference:
            self.reference = reference_of(backbone, reference_refresh_steps, True, reference_device, processes)
        estimator.lend(self.scored_states)
        self.rollout = rollout
        self.value_lr, self.value_clip_eps, self.tokenizer = value_lr, value_clip_eps, tokenizer
        self.critic = value_model_of(backbone)

    def make_optimizer(self) -> torch.optim.Optimizer:
        """One optimizer for both, the value model's groups first: the last group's learning rate is the one that is logged."""
        optimizer = replace(self.optim, lr=self.value_lr).build(self.critic)
        for group in self.optim.build(self.backbone).param_groups:
            optimizer.add_param_group(group)
        return optimizer

    def clipped_norms(self, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
        """Clip each model's gradient by itself: a large error of the values must not make the policy's step small."""
        models = {"train/grad_norm": self.backbone, "value/grad_norm": self.critic}
        limit = self.optim.max_grad_norm
        return {name: nn.utils.clip_grad_norm_(model.parameters(), limit) for name, model in models.items()}

    @torch.no_grad()
    def scored_states(self, samples: Samples) -> tuple[Tensor, Tensor | None]:
        """Return a rollout's values and the reference's log-probs (None without one), R x T, of the weights of this moment."""
        if self._trainer is not None:  # the rollout's first step refreshes it, too, but only after this
            self.reference.refresh_if_due(self.trainer.global_step, self.backbone)
        parts = self.rollout.minibatches_per_rollout * self.rollout.micro_batches
        # As many completions at a time as in a training step's forward.
        most = self.rollout.row_tokens * max(1, len(samples.generation.finished) // parts)
        given = (samples.prompts, samples.generation, self.tokenizer.pad_id, most)
        with in_evaluation_mode(self.critic):
            values_RT = completion_scores(self.values, *given)
        if self.reference.backbone is None:
            return values_RT, None
        return values_RT, completion_scores(self._asked_reference, *given)

    def values(self, batch: GRPOBatch) -> Tensor:
        """Return the values (C, FP32) of the states before the minibatch's C completion tokens."""
        batch = batch.to(device_of(self.critic))
        values_C, _ = self.critic.scores(batch.tokens, completion_index(batch) - 1)
        return values_C

    def _asked_reference(self, batch: GRPOBatch) -> Tensor:
        asked = self.reference.logprobs(batch.to(device_of(self.backbone)), self.sampling_temperature, self.replay)
        assert asked is not None, "there is a reference"
        return asked

    def reference_logprobs(self, batch: GRPOBatch) -> Tensor | None:
        """Return those that the rollout brought along."""
        targets = _targets_of(batch)
        return None if targets.ref_logprobs is None else targets.ref_logprobs.flatten()[completion_index(batch)]

    def training_step(self, batch: GRPOBatch, batch_idx: int) -> Tensor:
        policy_loss = super().training_step(batch, batch_idx)
        targets, index_C = _targets_of(batch), completion_index(batch)
        old_C, returns_C = targets.old_values.flatten()[index_C], targets.returns.flatten()[index_C]
        result = clipped_value_loss(self.values(batch), old_C, returns_C, batch.n_tokens, self.value_clip_eps)
        self.add_metrics(result.metrics)
        return policy_loss + result.loss * self.micro_batches  # as in GRPO's step


def value_model_of(policy: nn.Module) -> RewardModel:
    """Return a copy of `policy` with a scalar head of zeros: every value is 0 before the first step.

    Of a policy with adapters the copy trains its adapters and the head.
    """
    return RewardModel(copy.deepcopy(policy))


def _targets_of(batch: GRPOBatch) -> ValueTargets:
    assert batch.targets is not None, "`run/checks/rewards.py` asks for an estimator that makes them"
    return batch.targets
