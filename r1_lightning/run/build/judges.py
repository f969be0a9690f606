"""The judge as an input of a stage, `stage.inputs.judge={stage: NAME}` or `{folder: FOLDER}`: a model that judges responses.

Its fingerprint counts like that of any other input. It is loaded at its first use, with the precision of the stage's own model, on
that model's device or the one that `trainer.role_devices` names, and samples its replies with the settings of `rollout`. It has its
own tokenizer and template: an artefact those of its training, a HuggingFace folder plain text without a template.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor

from r1_lightning.artefacts.store import Artefact
from r1_lightning.model.precision import Precision
from r1_lightning.rollout.groups import RolloutConfig
from r1_lightning.rollout.judge_model import GenerativeJudge
from r1_lightning.rollout.native_sampler import NativeSampler
from r1_lightning.rollout.pair_judge import JudgingModel
from r1_lightning.rollout.rejection_sampling import RejectionSampling, accuracy_and_form, form_of
from r1_lightning.run.build.device import role_device
from r1_lightning.run.build.reward_models import with_models
from r1_lightning.run.build.stored import open_language_model
from r1_lightning.run.config.keys import JUDGE
from r1_lightning.text.chat_template import PLAIN
from r1_lightning.text.tokenizer import TextTokenizer
from r1_lightning.types.tensors import Generation
from r1_lightning.types.text import RewardFunction


def with_judge(parts: Mapping[str, Any], inputs: Mapping[str, Artefact], config: DictConfig) -> dict[str, Any]:
    """Return `parts` with a `JudgingModel` if the stage has an input `judge`. InvalidInput if that is not a language model."""
    if JUDGE not in inputs or "rollout" not in parts:
        return dict(parts)
    device, precision = role_device(config, JUDGE), parts["backbone"].precision
    return {**parts, JUDGE: judge_of(inputs[JUDGE], precision, parts["rollout"], parts["seed"], device)}


def judge_of(
    artefact: Artefact, precision: Precision, rollout: RolloutConfig, seed: int, device: torch.device | None = None
) -> JudgingModel:
    """Return the model in `artefact` (ours, or a HuggingFace folder) as a judge on `device`."""
    model = open_language_model(artefact, precision, JUDGE, "writes nothing")
    asked = _Asked(partial(model.backbone, device), model.tokenizer, rollout, seed)
    return JudgingModel(asked, model.tokenizer, model.template(PLAIN), model.shape.max_positions)


def what_is_right(
    parts: Mapping[str, Any], inputs: Mapping[str, Artefact], settings: RejectionSampling, config: DictConfig
) -> tuple[RewardFunction, RewardFunction | None]:
    """Return the functions that decide if a sample is right and if it has the required form: the reward's, or the judge.

    A judge is for answers that no rule can check (`run.checks.rules` refuses both); it compares with the reference answer.
    """
    if JUDGE not in inputs:
        return accuracy_and_form(with_models(parts["reward"], inputs, parts["backbone"].precision, config))
    model = with_judge(parts, inputs, config)[JUDGE]
    judge = GenerativeJudge(
        model.generate,
        model.tokenizer,
        model.template,
        votes=settings.judge_votes,
        max_new_tokens=settings.judge_new_tokens,
        max_tokens=model.max_tokens,
    )
    return judge, form_of(parts.get("reward"))


class _Asked:
    """A `GenerateFn` over a frozen model, which is made at its first use."""

    def __init__(self, make: Callable[[], Any], tokenizer: TextTokenizer, rollout: RolloutConfig, seed: int) -> None:
        self.make, self.tokenizer, self.rollout, self.seed = make, tokenizer, rollout, seed
        self._sampler: NativeSampler | None = None

    def __call__(
        self, prompts: Sequence[Sequence[int]], copies: int, keys: Tensor, max_new_tokens: int | None = None
    ) -> Generation:
        if self._sampler is None:
            model = self.make().requires_grad_(False).eval()
            self._sampler = NativeSampler(model, self.rollout.sampler_settings(self.tokenizer, self.seed))
        return self._sampler(prompts, copies, keys, max_new_tokens)
