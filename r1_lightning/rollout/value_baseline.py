"""PPO's advantage estimator: a value model says what to expect of each state, and GAE compares that with what came.

The estimator knows settings and no model. `stage=ppo` owns the value model and the reference, and lends them before the first
rollout (`lend`), so that all values of a rollout, and its penalties, are those of the moment at which it was sampled. What the
value model is to learn from the rollout goes with it (`ValueTargets`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from r1_lightning.functional.gae import generalised_advantages, rewards_to_go, token_rewards, value_metrics, whitened
from r1_lightning.functional.kl import k1
from r1_lightning.rollout.advantage_estimators import Estimate, counted_tokens
from r1_lightning.rollout.results import JudgedSamples, Samples
from r1_lightning.types.errors import InvalidInput, require, require_number
from r1_lightning.types.value_targets import ValueTargets

# Values and the reference's log-probs (None without a reference) of the tokens of R completions, R x T, 0 on padding.
Score = Callable[[Samples], tuple[Tensor, Tensor | None]]


@dataclass
class ValueBaseline:
    """Generalised advantages over a value model (PPO).

    `gae_lambda` is GAE's lambda and `discount` its gamma. `kl_coef` is the beta of the penalty in the rewards, beta (log pi - log
    pi_ref) of each token; 0 leaves it out. With `whiten` the advantages of a rollout get mean 0 and variance 1; the returns do not.
    """

    needs_value_model: ClassVar[bool] = True

    gae_lambda: float = 1.0
    discount: float = 1.0
    kl_coef: float = 0.0
    whiten: bool = True
    score: Score | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        require_number("rollout.advantages.gae_lambda", self.gae_lambda, 0.0, 1.0)
        require_number("rollout.advantages.discount", self.discount, 0.0, 1.0)
        require_number("rollout.advantages.kl_coef", self.kl_coef, 0.0)
        require(isinstance(self.whiten, bool), "rollout.advantages.whiten", self.whiten, "true or false")

    def lend(self, score: Score) -> None:
        """Use the value model, and the reference, behind `score` from now on."""
        self.score = score

    def __call__(self, samples: JudgedSamples) -> Estimate:
        """Return the estimate; raises `InvalidInput` if no stage has lent a value model."""
        if self.score is None:
            raise InvalidInput("rollout.advantages=ValueBaseline is not allowed: only stage=ppo has a value model")
        values_RT, ref_RT = self.score(samples)
        mask_RT, kl_RT = counted_tokens(samples), torch.zeros_like(values_RT)
        metrics = {}
        if ref_RT is not None:
            kl_RT = torch.where(mask_RT, k1(samples.generation.policy_logprobs, ref_RT), 0.0)
            metrics["rollout/kl_ref"] = float(kl_RT.sum() / mask_RT.sum().clamp(min=1))
        rewards_RT = token_rewards(samples.known_rewards.flatten(), kl_RT, mask_RT, self.kl_coef)
        advantages_RT = generalised_advantages(rewards_RT, values_RT, mask_RT, self.gae_lambda, self.discount)
        targets = ValueTargets(values_RT, values_RT + advantages_RT, ref_RT)  # where nothing is known, the value stays
        metrics |= value_metrics(values_RT, rewards_to_go(rewards_RT, mask_RT, self.discount), mask_RT)
        return Estimate(whitened(advantages_RT, mask_RT) if self.whiten else advantages_RT, targets, metrics)
