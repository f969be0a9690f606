"""Direct preference optimisation (Rafailov et al. 2023): a policy learns from pairs of responses, with no reward model or samples.

The loss compares how much likelier than under the frozen reference, which is the policy that the stage began with, the policy
makes the chosen response and the rejected one (`functional.preference_loss`). The data are those of a reward model, with whole
responses (`data.part=completion`).

The reference's log-probs are computed beside the policy's, by a second forward of the same packed rows, and not once per pair
before training: both are then the same numbers at the first step (loss ln 2, to the bit), nothing has to be stored for a resumed
run, and pairs that the policy samples, adapters and weights in shares need nothing of their own. It costs the memory of a copy,
none with adapters, and a forward per step, a fourth of the FLOPs.

MTP modules are not trained, and biases stay unchanged unless `bias_update_speed` is set.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from r1_lightning.functional.preference_loss import PolicyPreference
from r1_lightning.rollout.scoring import completion_index, score_completions
from r1_lightning.stages.base import AdamWConfig
from r1_lightning.stages.reference import StageWithReference, reference_of
from r1_lightning.types.errors import require
from r1_lightning.types.processes import ONE, Processes
from r1_lightning.types.tensors import PreferenceBatch

# Shape legend: C completion tokens, S sequences (responses), chosen and rejected in turn.


class DPOModule(StageWithReference):
    """Trains on `PreferenceBatch`es of pairs; `reference_device` is where the reference is, None beside the policy."""

    batch_type = PreferenceBatch

    def __init__(
        self,
        backbone: nn.Module,
        optim: AdamWConfig,
        objective: PolicyPreference,
        max_steps: int,
        bias_update_speed: float = 0.0,
        on_nonfinite: str = "stop",
        reference_device: torch.device | None = None,
        processes: Processes = ONE,
    ) -> None:
        super().__init__(backbone, optim, max_steps, bias_update_speed, on_nonfinite, processes)
        allowed = "it must be a loss of policies on pairs: objective=dpo or objective=ipo"
        require(isinstance(objective, PolicyPreference), "stage.objective", type(objective).__name__, allowed)
        self.objective = objective
        self.reference = reference_of(backbone, 0, True, reference_device, processes)

    def training_step(self, batch: PreferenceBatch, batch_idx: int) -> Tensor:
        require(batch.is_paired, "data", "single responses with a label", "stage=dpo needs pairs")
        scored = score_completions(self.backbone, batch, sampling_temperature=1.0)
        self.count_load(scored.output)
        policy_S, ref_S = self._sums(batch, scored.logprobs), self._reference_sums(batch)
        lengths_S = self._sums(batch, torch.ones_like(scored.logprobs))
        n_sequences = self.processes.sum(torch.tensor(len(policy_S)))
        result = self.objective(policy_S - ref_S, lengths_S, n_sequences)
        chosen, rejected = policy_S.detach().view(-1, 2).sum(0) / (n_sequences // 2)
        share = 1 / self.micro_batches  # micro-batches have equal sizes, so the step's mean is the mean of theirs
        metrics = {"train/loss": result.loss.detach(), **result.metrics}
        metrics |= {"dpo/chosen_logprob": chosen, "dpo/rejected_logprob": rejected}
        self.add_metrics({key: value * share for key, value in metrics.items()})
        return result.loss

    @torch.no_grad()
    def rewards(self, batch: PreferenceBatch) -> Tensor:
        """Return the implicit reward of each response (S), in nats times `kl_coef`."""
        logprobs_C = score_completions(self.backbone, batch, sampling_temperature=1.0).logprobs
        return self.objective.kl_coef * (self._sums(batch, logprobs_C) - self._reference_sums(batch))

    def _reference_sums(self, batch: PreferenceBatch) -> Tensor:
        logprobs_C = self.reference.logprobs(batch, sampling_temperature=1.0)
        assert logprobs_C is not None  # there is a reference
        return self._sums(batch, logprobs_C)

    @staticmethod
    def _sums(batch: PreferenceBatch, values_C: Tensor) -> Tensor:
        """Sum over each response's tokens: C to S."""
        sequence_C = batch.sequence_ids.flatten()[completion_index(batch)]
        return values_C.new_zeros(len(batch.ends)).index_add(0, sequence_C, values_C)
