"""Opens the model in a folder: an artefact of ours, or a HuggingFace checkpoint.

`open_model` reads the small files: tokenizer, shape, template. `StoredModel.backbone()` allocates memory and loads the weights. So
a teacher or a judge can be refused early, and is loaded at its first use.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch.distributed.device_mesh import DeviceMesh

from r1_lightning.artefacts import store
from r1_lightning.artefacts.hf_folder import KIND, ImportedModel, is_hf_folder, open_hf_folder
from r1_lightning.artefacts.hub import import_hub_model, is_hub_name
from r1_lightning.artefacts.store import Artefact
from r1_lightning.artefacts.weights import load_weights, stored_shapes
from r1_lightning.model.config import ModelConfig
from r1_lightning.model.hf_model import HFModelConfig
from r1_lightning.model.precision import Precision
from r1_lightning.model.reward_head import HEAD, RewardModel
from r1_lightning.run.build.hf_import import model_node_of
from r1_lightning.run.build.models import AnyBackbone, make_backbone, vocab_size_of
from r1_lightning.run.build.templates import template_of
from r1_lightning.run.config.inject import inject
from r1_lightning.run.config.stored import read_model
from r1_lightning.text.chat_template import ChatTemplate
from r1_lightning.text.tokenizer import TextTokenizer
from r1_lightning.types.errors import InvalidInput


@dataclass(frozen=True)
class StoredModel:
    """The description of a folder's model.

    `config` is the stored configuration of an artefact; None for a checkpoint, which has no task and no template of ours.
    """

    artefact: Artefact
    tokenizer: TextTokenizer
    shape: ModelConfig | HFModelConfig
    precision: Precision
    config: DictConfig | None

    def template(self, otherwise: ChatTemplate, instruction: str | None = None) -> ChatTemplate:
        """Return the template of an artefact's training, or `otherwise` with the named `instruction` for a checkpoint.

        Where that is the one which a checkpoint brings along, it is read from this model's folder. `InvalidInput` for an unknown
        one.
        """
        name = otherwise.name
        if self.config is not None:
            name, instruction = self.setting("task.template"), self.setting("task.instruction")
        return template_of(name, instruction, self.artefact.tokenizer_folder, self.tokenizer)[0]

    def setting(self, path: str) -> Any:
        """Return a value of the artefact's stored configuration; None if it has none."""
        return None if self.config is None else OmegaConf.select(self.config, path)

    def backbone(self, device: torch.device | None = None, mesh: DeviceMesh | None = None) -> AnyBackbone:
        """Make the network with its weights on `device`, or with a `mesh` in shares, all processes together.

        `InvalidInput` if they do not fit; those of a reward model never do.
        """
        return make_backbone(self.shape, self.precision, self.artefact, device=device, mesh=mesh)

    def reward_model(self, device: torch.device | None = None) -> RewardModel:
        """Make the reward model with its weights on `device`. `InvalidInput` if the weights are not a reward model's."""
        model = RewardModel(make_backbone(self.shape, self.precision, device=device))
        load_weights(model, self.artefact.weights_path)
        return model


def open_model(artefact: Artefact, precision: Precision, field: str = "artefact") -> StoredModel:
    """Open the model in `artefact` for use in `precision`; errors about its folder name the config key `field`.

    Raises `InvalidInput` for a configuration that names code which is not ours, and for a damaged tokenizer or vocabulary.
    """
    tokenizer = TextTokenizer.load(artefact.tokenizer_folder)
    is_published = isinstance(artefact, ImportedModel)
    config = None if is_published else read_model(artefact.folder / store.CONFIG)
    node = OmegaConf.create(model_node_of(artefact, field)) if config is None else config.model
    shape = inject(node, {"vocab_size": vocab_size_of(tokenizer, artefact)})
    return StoredModel(artefact, tokenizer, shape, precision, config)


def open_language_model(artefact: Artefact, precision: Precision, role: str, does_not: str) -> StoredModel:
    """Open the language model of a stage's input; `InvalidInput` for a reward model, which `does_not`."""
    if is_reward_model(artefact):
        where = f"stage.inputs.{role}={str(artefact.folder)!r}"
        raise InvalidInput(f"{where} is not allowed: it holds a reward model, which {does_not}")
    return open_model(artefact, precision, f"stage.inputs.{role}")


def is_reward_model(artefact: Artefact) -> bool:
    """True if the weights are those of a reward model, which scores and predicts no tokens."""
    return HEAD in stored_shapes(artefact.weights_path)


def open_folder(folder: str | Path) -> Artefact:
    """Open a verified artefact, or a checkpoint in a folder or named `hub:OWNER/NAME`; no file is read for a fingerprint."""
    if is_hub_name(folder):
        return import_hub_model(folder)
    path = Path(folder).expanduser()
    if is_hf_folder(path):
        return ImportedModel(path, KIND, "", complete=True, source=open_hf_folder(path))
    artefact = store.open_artefact(path)
    store.verify(artefact)
    return artefact
