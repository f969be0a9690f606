"""Reward models as inputs of a stage: artefacts of `stage=reward_model` provide the models of model-based rewards.

A model-based reward has the same name as the stage input that provides its model: `reward.rewards.helpful` with `name: helpful` and
`stage.inputs: {base: pretrain, helpful: reward_model}`. So the model's weights count in the fingerprint like any other input's.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from omegaconf import DictConfig

from r1_lightning.artefacts.store import Artefact
from r1_lightning.model.precision import Precision
from r1_lightning.rewards.combine import WeightedSum
from r1_lightning.rollout.reward_scorer import RewardScorer
from r1_lightning.run.build.device import role_device
from r1_lightning.run.build.stored import is_reward_model, open_model
from r1_lightning.text.chat_template import PLAIN
from r1_lightning.types.errors import InvalidInput, require
from r1_lightning.types.text import Scorer


def with_models(
    reward: WeightedSum, inputs: Mapping[str, Artefact], precision: Precision, config: DictConfig
) -> WeightedSum:
    """Return `reward` with its models in `precision`, each on the device that `config` gives its role.

    InvalidInput if an input is missing, is not a reward model, or was trained on another part of responses.
    """
    scorers: dict[str, Scorer] = {}
    for role, part in reward.part_of_model.items():
        require(role in inputs, f"stage.inputs.{role}", None, f"the reward {role} asks a model of this name")
        scorers[role] = load_scorer(role, inputs[role], part, precision, role_device(config, role))
    return reward.with_scorers(scorers)


def load_scorer(
    role: str, artefact: Artefact, part: str, precision: Precision, device: torch.device | None = None
) -> RewardScorer:
    """Load the reward model in `artefact` onto `device`, with its own tokenizer and template."""
    if not is_reward_model(artefact):
        raise InvalidInput(f"stage.inputs.{role}={str(artefact.folder)!r} is not allowed: it holds no reward model")
    model = open_model(artefact, precision, f"stage.inputs.{role}")
    learned = model.setting("data.part")
    allowed = f"its model was trained on {learned!r}; set the same where the reward stands: reward.rewards.{role}.part={learned}"
    require(learned == part, f"reward.rewards.{role}.part", part, allowed)
    network = model.reward_model(device)
    return RewardScorer(network, model.tokenizer, model.template(PLAIN), model.shape.max_positions)
