"""The other models of a stage (teacher, judge, reward models), on the meta device, from their configurations alone.

An input is a stage that is still to be made, an artefact, or a checkpoint's folder; of all three only the description is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from r1_lightning.artefacts.store import Artefact
from r1_lightning.model.precision import Precision
from r1_lightning.model.reward_head import RewardModel
from r1_lightning.run.build.hf_import import FIELDS, model_node_of
from r1_lightning.run.build.models import make_backbone, vocab_size_of
from r1_lightning.run.config.inject import inject
from r1_lightning.run.config.keys import JUDGE, TEACHER
from r1_lightning.run.config.stage_config import BASE
from r1_lightning.run.graph.node import Node
from r1_lightning.text.tokenizer import TextTokenizer

Source = Node | Artefact
DATA = "data"  # the input that holds a data set


def complete(source: Source | None) -> Artefact | None:
    """Return the artefact of an input if it is there."""
    if source is None or isinstance(source, Artefact):
        return source
    found = source.found()
    return found if found is not None and found.complete else None


def data_folder(inputs: Mapping[str, Source]) -> dict[str, Any]:
    """Return the part `data_folder` if the stage has an input with a data set, and it is there."""
    found = complete(inputs.get(DATA))
    return {} if found is None else {"data_folder": found.folder}


def is_named(examples: Any) -> bool:
    """True if the node of a data module's examples, if it has any, names where they are."""
    return examples is None or bool(examples.get("file") or examples.get("hub"))


def models_beside(inputs: Mapping[str, Source], parts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the stage's other models by role, without memory: its teacher, its judge, and those of its rewards."""
    rewards = tuple(getattr(parts.get("reward"), "part_of_model", {}))
    given = (parts["backbone"].precision, parts["tokenizer"])
    roles = [role for role in (TEACHER, JUDGE, *rewards) if role in inputs]
    models = {role: empty_model(inputs[role], *given, f"stage.inputs.{role}") for role in roles}
    return {role: RewardModel(model) if role in rewards else model for role, model in models.items()}


def empty_model(source: Source, precision: Precision, tokenizer: TextTokenizer, field: str) -> Any:
    """Return the network of an input without memory. A model that is still to be made has the tokenizer of this stage."""
    found = complete(source)
    node = OmegaConf.create(model_node_of(found, field)) if found is not None else described(source)
    rows = tokenizer.vocab_size if found is None else vocab_size_of(tokenizer, found)
    return make_backbone(inject(node, {"vocab_size": rows}), precision, is_empty=True)


def described(source: Any) -> DictConfig:
    """Return the `model` node of a stage to be made; a model of `transformers` is described by the checkpoint it starts from."""
    node: DictConfig = source.stage.config.model
    base = source.inputs.get(BASE)
    if FIELDS not in node or node.get(FIELDS) is not None or base is None:
        return node
    theirs = model_node_of(base, BASE) if isinstance(base, Artefact) else described(base)
    return OmegaConf.merge(node, {FIELDS: theirs[FIELDS]})
