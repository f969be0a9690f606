"""Reward models as inputs of a stage: artefacts of `stage=reward_model` become the models that rewards ask.

A reward that asks a model is named after the stage's input it asks: `reward.rewards.helpful` with `name: helpful` and
`stage.inputs: {base: pretrain, helpful: reward_model}`. So the model's weights count in the fingerprint like any other input's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf

from r1_lightning.artefacts.store import CONFIG, Artefact
from r1_lightning.artefacts.weights import load_weights, stored_rows, stored_shapes
from r1_lightning.model.precision import Precision
from r1_lightning.model.reward_head import HEAD, RewardModel
from r1_lightning.rewards.combine import WeightedSum
from r1_lightning.rollout.reward_scorer import RewardScorer
from r1_lightning.run.build.models import make_backbone
from r1_lightning.run.config.inject import inject
from r1_lightning.run.config.stored import read_model
from r1_lightning.text.chat_template import TEMPLATES
from r1_lightning.text.tokenizer import TextTokenizer
from r1_lightning.types.errors import InvalidInput, require, require_choice
from r1_lightning.types.text import Scorer

EMBEDDING = "backbone.embedding.weight"  # of our own backbone; its rows are the vocabulary


def with_models(reward: WeightedSum, inputs: Mapping[str, Artefact], backbone: Any) -> WeightedSum:
    """`reward` with the models that it asks, of the same precision and on the same device as the policy `backbone`.

    InvalidInput where an input is missing, is no reward model, or was trained on another part of responses.
    """
    scorers: dict[str, Scorer] = {}
    for role, part in reward.part_of_model.items():
        require(role in inputs, f"stage.inputs.{role}", None, f"the reward {role} asks a model of this name")
        scorers[role] = load_scorer(role, inputs[role], part, backbone.precision, backbone)
    return reward.with_scorers(scorers)


def load_scorer(role: str, artefact: Artefact, part: str, precision: Precision, beside: Any = None) -> RewardScorer:
    """The reward model in `artefact`, with its own tokenizer and template."""
    if HEAD not in stored_shapes(artefact.weights_path):
        raise InvalidInput(f"stage.inputs.{role}={str(artefact.folder)!r} is not allowed: it holds no reward model")
    config = read_model(artefact.folder / CONFIG)
    learned = OmegaConf.select(config, "data.part")
    allowed = f"its model was trained on {learned!r}; set the same where the reward stands: reward.rewards.{role}.part={learned}"
    require(learned == part, f"reward.rewards.{role}.part", part, allowed)
    template = OmegaConf.select(config, "task.template")
    require_choice("task.template", template, TEMPLATES)
    tokenizer = TextTokenizer.load(artefact.tokenizer_folder)
    rows = stored_rows(artefact.weights_path, EMBEDDING)
    shape = inject(config.model, {"vocab_size": tokenizer.vocab_size if rows is None else rows})
    model = RewardModel(make_backbone(shape, precision))
    load_weights(model, artefact.weights_path)
    return RewardScorer(model, tokenizer, TEMPLATES[template], shape.max_positions, beside)
