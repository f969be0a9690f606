"""GRPO (DeepSeekMath section 4; R1 section 2.1): RL with advantages relative to the other completions of the same prompt.

One optimizer step is one minibatch of a rollout. Log-probs under the policy come from the training forward, old ones from
the sampler and, if the objective needs them, reference ones from the frozen reference, all of softmax(logits /
sampling_temperature). The expert biases stay frozen by default, so that a token goes to the same experts in sampling and in
training.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor, nn

from r1_lightning.functional.cross_entropy import mtp_loss
from r1_lightning.functional.kl import k3
from r1_lightning.functional.policy_loss import Objective, SampledTokens
from r1_lightning.rollout.scoring import completion_index, score_completions
from r1_lightning.stages.base import AdamWConfig
from r1_lightning.stages.mtp import loss_ahead
from r1_lightning.stages.reference import StageWithReference, reference_of
from r1_lightning.types.errors import InvalidInput, require_choice, require_number
from r1_lightning.types.processes import ONE, Processes
from r1_lightning.types.tensors import BackboneOutput, GRPOBatch

ROUTERS = ("frozen", "update", "replay")
TRUNKS = ("trained", "detached")
# Is told of each micro-batch's C completion tokens: their sequences, log-probs and entropies (nats), on the device.
OnScored = Callable[[Tensor, Tensor, Tensor], None]


class GRPOModule(StageWithReference):
    """Trains on `GRPOBatch`es.

    `router` decides how experts are chosen: "frozen" keeps the expert biases, "update" goes on balancing them by
    `bias_update_speed`, "replay" keeps them and uses the sampler's routes in the training forward. With `mtp_loss_weight` 0 the
    MTP modules are not trained; above 0 they go on learning to predict the completions, and `mtp_trunk` decides what else their
    loss trains. "trained": also trunk, embedding and head, as in pre-training, which pulls the policy towards all sampled
    completions, right or wrong. "detached": nothing else, so that only rewards and KL move the policy (gradient clipping still
    sees the norm of both).

    `objective` is one of `functional.policy_loss`, `sequence_policy_loss` or `importance_sampling`; without a KL term it needs no
    reference model, and `reference_refresh_steps` plays no part. `on_zero_variance` says what happens at a step whose advantages
    are all 0: "train" (the KL alone moves the policy), "skip" it, or "stop" the run. `reference_device` is where the reference is,
    None beside the policy.

    `on_scored`, if a callback sets it, is shown what the training forward computed of each token; nothing depends on it.

    The metric `policy/kl_old` estimates KL[pi_old || pi] per token, in nats. In the first minibatch of a rollout no weight has
    changed yet: there it is the mismatch of sampler and training forward.
    """

    batch_type = GRPOBatch

    def __init__(
        self,
        backbone: nn.Module,
        optim: AdamWConfig,
        objective: Objective,
        max_steps: int,
        sampling_temperature: float = 1.0,
        reference_refresh_steps: int = 400,
        router: str = "frozen",
        bias_update_speed: float = 0.001,
        mtp_loss_weight: float = 0.0,
        on_nonfinite: str = "stop",
        on_zero_variance: str = "train",
        mtp_trunk: str = "trained",
        reference_device: torch.device | None = None,
        processes: Processes = ONE,
    ) -> None:
        require_choice("stage.router", router, ROUTERS)
        speed = bias_update_speed if router == "update" else 0.0
        super().__init__(backbone, optim, max_steps, speed, on_nonfinite, processes)
        require_number("stage.mtp_loss_weight", mtp_loss_weight, 0.0)
        require_choice("stage.mtp_trunk", mtp_trunk, TRUNKS)
        require_choice("stage.on_zero_variance", on_zero_variance, ("train", "skip", "stop"))
        require_number("rollout.sampling_temperature", sampling_temperature, 0.0, open_minimum=True)
        self.objective = objective
        self.sampling_temperature = sampling_temperature
        self.replay = router == "replay"
        self.mtp_loss_weight = mtp_loss_weight
        self.mtp_detached = mtp_trunk == "detached"
        self.on_zero_variance = on_zero_variance
        self.step_teaches = False
        self.on_scored: OnScored | None = None
        self.reference = reference_of(
            backbone, reference_refresh_steps, objective.needs_reference, reference_device, processes
        )

    def training_step(self, batch: GRPOBatch, batch_idx: int) -> Tensor:
        with_mtp = self.mtp_loss_weight > 0
        # Passed only if set: models of `transformers` do not have this argument.
        form = {"mtp_detached": True} if with_mtp and self.mtp_detached else {}
        scored = score_completions(self.backbone, batch, self.sampling_temperature, with_mtp, self.replay, **form)
        self.count_load(scored.output)
        # Only tokens in the loss count: the advantage of a masked completion teaches nothing.
        self.step_teaches |= bool(batch.advantages[batch.completion_mask].any())
        tokens = sampled_tokens(batch, scored.logprobs, self.reference_logprobs(batch))
        if self.on_scored is not None:
            self.on_scored(tokens.sequence_ids, tokens.policy_logprobs.detach(), scored.entropies.detach())
        output = self.objective(tokens)
        metrics = {
            "train/loss": output.loss.detach(),
            "policy/entropy": tokens.token_mean(scored.entropies),
            "policy/kl_old": tokens.token_mean(k3(tokens.old_logprobs, tokens.policy_logprobs.detach())),
            **output.metrics,
        }
        loss = output.loss
        if with_mtp:
            mtp = self._mtp_loss(batch, scored.output)
            loss, metrics["train/mtp_loss"] = loss + mtp, mtp.detach()
        self.add_metrics(metrics)
        # Lightning divides by the number of micro-batches; the batch's own denominators have divided already.
        return loss * self.micro_batches

    def reference_logprobs(self, batch: GRPOBatch) -> Tensor | None:
        """Return the reference's log-probs C; None for an objective without a KL term, which has none and saves its forward."""
        return self.reference.logprobs(batch, self.sampling_temperature, self.replay)

    def _mtp_loss(self, batch: GRPOBatch, output: BackboneOutput) -> Tensor:
        """(lambda / D) times the MTP depths' losses on completion tokens, weighted by this micro-batch's share of the tokens."""
        mask = batch.completion_mask
        form: dict[str, Any] = {"head_detached": self.mtp_detached, "processes": self.processes}
        depths = [
            loss_ahead(self.backbone, hidden, batch.tokens, places, mask, **form)
            for places, hidden in enumerate(output.mtp, 2)
        ]
        share = self.processes.sum(mask.sum()) / max(batch.n_tokens, 1)
        return mtp_loss(depths, self.mtp_loss_weight) * share

    def nothing_to_learn(self) -> bool:
        # Of the whole step: one process may hold the only completions that teach.
        teaches, self.step_teaches = self.processes.any(self.step_teaches), False
        if not teaches and self.on_zero_variance == "stop":
            self.log_last_step({"rollout/zero_variance_fraction": 1.0})
            raise InvalidInput(
                f"step {self.global_step}: all completions of every group got equal rewards, so nothing can be learned "
                "(stage.on_zero_variance=stop); try easier problems, a larger rollout.group_size, or "
                "rollout.dynamic_sampling_attempts"
            )
        return not teaches and self.on_zero_variance == "skip"

    def on_train_start(self) -> None:
        if self.mtp_loss_weight > 0 and not self.mtp_detached:
            rank_zero_only(print)(
                f"stage.mtp_loss_weight={self.mtp_loss_weight:g}: the MTP loss moves trunk, embedding and head, too, whatever the "
                "rewards; +stage.mtp_trunk=detached keeps it to the MTP modules",
                flush=True,
            )

    def on_train_batch_start(self, *_: object) -> None:
        # Before the step, not after the last one: the checkpoint is written in between, and a resumed run must refresh as well.
        self.reference.refresh_if_due(self.trainer.global_step, self.backbone)


def sampled_tokens(batch: GRPOBatch, policy_logprobs: Tensor, ref_logprobs: Tensor | None) -> SampledTokens:
    """Gather log-probs, advantages and sequence ids of a minibatch's C completion tokens, in the order of the packed rows."""
    index_C = completion_index(batch)
    return SampledTokens(
        policy_logprobs=policy_logprobs,
        old_logprobs=batch.old_logprobs.flatten()[index_C],
        sampler_logprobs=batch.sampler_logprobs.flatten()[index_C],
        ref_logprobs=ref_logprobs,
        sequence_ids=batch.sequence_ids.flatten()[index_C],
        advantages=batch.advantages.flatten()[index_C],
        completion_tokens=batch.completion_tokens,
        n_sequences=batch.n_sequences,
        n_tokens=batch.n_tokens,
    )
