"""Small real runs with one fault each: what a review has to name, and the same run without any.

Each trains the 16-character miniature by the real stage, data module, sampler and loggers, and leaves a folder with metrics.csv and
config.yaml. A fault is one change to its parts.
"""

from __future__ import annotations

import copy
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import lightning as L
import torch

from r1_lightning.callbacks.rollout_logger import RolloutLogger
from r1_lightning.callbacks.throughput import Throughput
from r1_lightning.data.rollout_data import GroupedRolloutsDataModule
from r1_lightning.functional.policy_loss import TokenLevelGRPO
from r1_lightning.rewards.combine import WeightedSum
from r1_lightning.rollout.groups import RolloutConfig
from r1_lightning.rollout.sampler import Sampler
from r1_lightning.run.stages.metrics_log import MetricsLog
from r1_lightning.stages.base import AdamWConfig
from r1_lightning.text.chat_template import PLAIN
from r1_lightning.types.text import Completion, Problem, Verdict
from tests.support.miniature import EOS, CharTokenizer, Miniature, Spy, Sums, backbone, rollout_config, trainer
from tests.support.run_folders import CONFIG, write_config

STEPS = 30
LENGTH = 54  # tokens a completion may have; at first it ends after 18 in the mean


@dataclass(frozen=True)
class Reward:
    """A reward that is a function of the question and the completion."""

    score: Callable[[str, str], float]
    name: str = "accuracy"
    timed_out: bool = False

    def __call__(self, problem: Problem, completion: Completion) -> Verdict:
        return Verdict(self.score(problem.question, completion.text), "planted", timed_out=self.timed_out)


def digits(question: str, text: str) -> float:
    """What a healthy run learns: digits in the first 4 places, and to end within 25."""
    return sum(character.isdigit() for character in text[:4]) / 4 if len(text) <= 25 else 0.0


def brief(question: str, text: str) -> float:
    """1 for an empty completion, less for a longer one, 0 from 20 characters on."""
    return max(0.0, 1 - len(text) / 20)


@dataclass
class Plan:
    """The parts of a run of RL that a fault may change."""

    rewards: list[Reward] = field(default_factory=lambda: [Reward(digits)])
    weights: dict[str, float] | None = None
    rollout: RolloutConfig = field(
        default_factory=lambda: rollout_config(
            prompts_per_rollout=4, group_size=8, max_new_tokens=LENGTH, row_tokens=LENGTH + 8
        )
    )
    optim: AdamWConfig = field(default_factory=lambda: AdamWConfig(lr=0.003))
    stage: dict[str, Any] = field(default_factory=dict)
    generate: Callable[[Miniature], Any] = lambda miniature: miniature.sampler()
    callbacks: list[L.Callback] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)


def run_rl(folder: Path, plan: Plan, seed: int = 0, steps: int = STEPS) -> Path:
    """Train by GRPO as planned, and return the folder."""
    miniature = Miniature(backbone(seed), seed, steps, plan.rollout, plan.optim)
    tokenizer: Any = CharTokenizer()
    reward = WeightedSum(plan.rewards, plan.weights, **plan.settings)
    data = GroupedRolloutsDataModule(
        Sums(), tokenizer, PLAIN, plan.generate(miniature), reward, plan.rollout, seed, steps
    )
    stage = miniature.grpo(**{"objective": TokenLevelGRPO(kl_coef=0.01), **plan.stage})
    weights = plan.weights or {one.name: 1.0 for one in plan.rewards}
    write_config(folder, {**CONFIG, "seed": seed, "reward": {"weights": weights}})
    fit = trainer(steps, folder, [RolloutLogger(), Throughput(), *plan.callbacks], **_logged(folder))
    fit.fit(stage, datamodule=data)
    return folder


def run_pretraining(folder: Path, lr: float = 0.01, noise: bool = False, seed: int = 0, steps: int = STEPS) -> Path:
    """Pre-train on sums, or on targets that no input tells anything of."""
    miniature = Miniature(backbone(seed), seed, steps, optim=AdamWConfig(lr=lr))
    write_config(folder, {**CONFIG, "seed": seed, "stage": {"_target_": "PretrainModule", "max_steps": steps}})
    callbacks: list[L.Callback] = [Throughput(), *([Spy("on_train_batch_start", _scramble)] if noise else [])]
    fit = trainer(steps, folder, callbacks, **_logged(folder))
    fit.fit(miniature.pretrain(), datamodule=miniature.text())
    return folder


def _logged(folder: Path) -> dict[str, Any]:
    return {"logger": [MetricsLog(folder, name="", version="tensorboard")], "log_every_n_steps": 1}


def _scramble(trainer: L.Trainer, module: L.LightningModule, batch: Any, index: int) -> None:
    tokens = batch.token_ids
    tokens.copy_(torch.randint(0, EOS, tokens.shape, generator=torch.Generator().manual_seed(index)))


@dataclass(frozen=True)
class Reversed(TokenLevelGRPO):
    """GRPO with the sign of its advantages turned: it learns what is not rewarded."""

    def surrogate(self, ratio: torch.Tensor, advantage: torch.Tensor) -> torch.Tensor:
        return super().surrogate(ratio, -advantage)


def of_a_copy(miniature: Miniature) -> Any:
    """A sampler whose weights stay those of the beginning."""
    return miniature.sampler(copy.deepcopy(miniature.model))


def without_end(miniature: Miniature) -> Any:
    """A sampler that does not know the token that ends a completion."""
    tokenizer: Any = CharTokenizer()
    settings = miniature.rollout.sampler_settings(tokenizer, miniature.seed)
    return Sampler(miniature.model, replace(settings, eos_ids=(CharTokenizer.vocab_size,)))


def bad_gradients(trainer: L.Trainer, module: Any, optimizer: Any) -> None:
    """From two thirds of the run on, no gradient is a number."""
    if trainer.global_step >= 2 * trainer.max_steps // 3:
        for parameter in module.backbone.parameters():
            if parameter.grad is not None:
                parameter.grad.fill_(math.nan)


def no_gradients(trainer: L.Trainer, module: Any, optimizer: Any) -> None:
    """Nothing reaches the weights."""
    for parameter in module.backbone.parameters():
        if parameter.grad is not None:
            parameter.grad.zero_()


def by_question(question: str, text: str) -> float:
    """The same for all completions of a question."""
    return float(zlib.crc32(question.encode()) % 2)


# What is planted -> the run, and the rules one of which must name it.
RL_FAULTS: dict[str, tuple[Callable[[], Plan], set[str]]] = {
    "reward always 0": (lambda: Plan(rewards=[Reward(lambda question, text: 0.0)]), {"reward flat"}),
    "reward by the question alone": (lambda: Plan(rewards=[Reward(by_question)]), {"zero-variance groups"}),
    "no end token": (lambda: Plan(generate=without_end), {"truncated completions"}),
    "learning rate x 100": (
        lambda: Plan(optim=AdamWConfig(lr=0.3)),
        {"steps too large", "clipped share", "KL drift", "reward fallen", "entropy collapse", "truncated completions"},
    ),
    "KL off: the reference follows": (lambda: Plan(stage={"reference_refresh_steps": 1}), {"no KL divergence"}),
    "stale weights": (lambda: Plan(generate=of_a_copy), {"stale or mismatched log-probs"}),
    "another temperature": (lambda: Plan(stage={"sampling_temperature": 0.7}), {"stale or mismatched log-probs"}),
    "no gradient": (lambda: Plan(callbacks=[Spy("on_before_optimizer_step", no_gradients)]), {"nothing moves"}),
    "gradients are no numbers": (
        lambda: Plan(stage={"on_nonfinite": "skip"}, callbacks=[Spy("on_before_optimizer_step", bad_gradients)]),
        {"not finite", "skipped steps"},
    ),
    "verifier out of time": (lambda: Plan(rewards=[Reward(digits, timed_out=True)]), {"verifier timeouts"}),
    "no finite score": (
        lambda: Plan(
            rewards=[
                Reward(lambda question, text: math.nan if by_question(question, text) else digits(question, text))
            ],
            settings={"on_bad_score": "drop_group"},
        ),
        {"unjudged completions"},
    ),
    "reward pays for length": (
        lambda: Plan(
            rewards=[Reward(lambda question, text: len(text) / LENGTH, "score"), Reward(brief)],
            weights={"score": 1.0, "accuracy": 0.0},
            optim=AdamWConfig(lr=0.02),
        ),
        {"reward without accuracy"},
    ),
    "sign of the advantages": (
        lambda: Plan(stage={"objective": Reversed(kl_coef=0.0)}, optim=AdamWConfig(lr=0.02)),
        {"reward fallen", "reward flat"},
    ),
    "nearly greedy sampling": (
        lambda: Plan(rollout=replace(Plan().rollout, sampling_temperature=0.02), optim=AdamWConfig(lr=1e-4)),
        {"zero-variance groups"},
    ),
}
# Of these the loss falls all the same: the band of healthy runs names them.
PRETRAINING_FAULTS: dict[str, dict[str, Any]] = {
    "targets that nothing tells of": {"noise": True},
    "learning rate x 100": {"lr": 1.0},
}
