"""Starting from a checkpoint in HuggingFace's form: `init_from=FOLDER` in place of an artefact of ours.

The folder's `config.json` says what the model is, so the stage's `model` comes from it: for the DeepSeek family its numbers become
those of our own backbone; of another family all fields are kept, and `transformers` makes the model (`model=hf`, which need not be
typed). Both end up in the stage's configuration, so that its artefact needs the folder no more, and a later stage that starts from
it finds them there.

`config.json` comes from outside: values that Hydra would act on (interpolations, keys such as `_target_`) are refused.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from r1_lightning.artefacts import store
from r1_lightning.artefacts.hf_folder import HFFolder, ImportedModel, import_model, is_hf_folder
from r1_lightning.artefacts.store import Artefact
from r1_lightning.model.config import ModelConfig
from r1_lightning.model.hf_config import FAMILIES, config_from_hf
from r1_lightning.model.hf_model import HFModelConfig, is_of_the_model
from r1_lightning.model.hf_weights import stored_mtp_depth
from r1_lightning.model.lora import LoraSettings
from r1_lightning.run.config.declarations import is_of_transformers, is_ours
from r1_lightning.run.config.stage_config import StageConfig
from r1_lightning.run.config.stored import read_model
from r1_lightning.run.config.targets import refuse_interpolations
from r1_lightning.types.errors import InvalidInput

FIELDS = "hf_config"


def open_input(folder: str, field: str = "init_from") -> Artefact:
    """The artefact, or the checkpoint in HuggingFace's form, that `field` names: whole and undamaged."""
    path = Path(folder).expanduser()
    try:
        if is_hf_folder(path):
            return import_model(path)
        artefact = store.open_artefact(path)
        store.verify(artefact)
    except InvalidInput as error:
        raise InvalidInput(f"{field}: {error}") from error
    return artefact


def with_model_of(stage: StageConfig, base: Artefact | None) -> StageConfig:
    """`stage` with the model of the input it starts from: of a HuggingFace folder, or of an artefact unless `model` is typed.

    A model of `transformers` is `model=hf`, typed or not. Raises InvalidInput where another model is set on the command line beside
    a folder that decides it, or where `model=hf` is asked for and nothing says what the model is.
    """
    stage = _as_theirs(stage, base)
    if is_of_transformers(stage.config.model):
        return _with_model(
            stage, {**_plain(stage.config.model), "lora": _lora_node(stage), FIELDS: _hf_fields(stage, base)}
        )
    if base is None or not is_ours(stage.config.model):
        return stage
    set_here = _typed_model(stage)
    if not isinstance(base, ImportedModel):
        return stage if set_here else _with_model(stage, _stored_node(base))
    if set_here:
        raise InvalidInput(
            f"{set_here[0]} is not allowed beside init_from={base.folder}: its config.json says what the model is"
        )
    named = dataclasses.replace(stage, choices={**stage.choices, "model": str(base.source.config.get("model_type"))})
    return _with_model(named, _deepseek_node(base))


def model_is_typed(stage: StageConfig) -> bool:
    """Whether the command line says what the model is."""
    return bool(_typed_model(stage))


def _typed_model(stage: StageConfig) -> list[str]:
    return [override for override in stage.overrides if override.lstrip("+").startswith(("model=", "model."))]


def _as_theirs(stage: StageConfig, base: Artefact | None) -> StageConfig:
    """`stage` with `model=hf` where its input holds a model of `transformers`, with the input's adapters, and no model is typed."""
    if base is None or _typed_model(stage) or not is_ours(stage.config.model):
        return stage
    if isinstance(base, ImportedModel):
        is_theirs, lora = base.source.config.get("model_type") not in FAMILIES, None
    else:
        node = read_model(base.folder / store.CONFIG).model
        is_theirs, lora = is_of_transformers(node), _plain(node).get("lora")
    if not is_theirs:
        return stage
    node = {"_target_": _path(HFModelConfig), FIELDS: None, "lora": lora}
    return _with_model(dataclasses.replace(stage, choices={**stage.choices, "model": "hf"}), node)


def model_node_of(artefact: Artefact, field: str) -> dict[str, Any]:
    """The `model` node of any artefact or folder, for who wants its model beside another; errors speak of `field`."""
    if not isinstance(artefact, ImportedModel):
        return _plain(read_model(artefact.folder / store.CONFIG).model)
    if artefact.source.config.get("model_type") in FAMILIES:
        return _deepseek_node(artefact)
    fields = {name: value for name, value in artefact.source.config.items() if is_of_the_model(name)}
    refuse_directives(fields, f"{field}: {artefact.folder}/config.json")
    return {"_target_": _path(HFModelConfig), FIELDS: fields}


def _stored_node(base: Artefact) -> dict[str, Any]:
    """The `model` node of an artefact: what it began with may have been a folder, whose shape no option here has."""
    return _plain(read_model(base.folder / store.CONFIG).model)


def _plain(node: DictConfig) -> dict[str, Any]:
    plain = OmegaConf.to_container(node, resolve=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _hf_fields(stage: StageConfig, base: Artefact | None) -> dict[str, Any]:
    """The fields of the base's `config.json`, from the folder itself or from the artefact that began with it."""
    if isinstance(base, ImportedModel):
        fields = {name: value for name, value in base.source.config.items() if is_of_the_model(name)}
        refuse_directives(fields, f"init_from: {base.folder}/config.json")
        return fields
    if base is not None:
        node = read_model(base.folder / store.CONFIG).model
        if node.get(FIELDS) is None:
            raise InvalidInput(f"model=hf is not allowed: {base.folder} holds a model of ours; leave model=hf out")
        _refuse_other_adapters(node.get("lora"), stage, base.folder)
        fields = dict(_plain(node)[FIELDS])
        refuse_directives(fields, f"init_from: {base.folder}/{store.CONFIG}")
        return fields
    return HFModelConfig(_plain(stage.config.model).get(FIELDS)).fields()


def _lora_node(stage: StageConfig) -> dict[str, Any] | None:
    """The stage's `lora` with every field, so that leaving one at its default is the same as writing it down."""
    node = stage.config.model.get("lora")
    if node is None:
        return None
    settings = dataclasses.asdict(instantiate(node))
    return {"_target_": _path(LoraSettings), **settings, "target_modules": list(settings["target_modules"])}


def _refuse_other_adapters(stored: DictConfig | None, stage: StageConfig, folder: Path) -> None:
    """An input's adapters go on as they are; one without adapters takes any."""
    wanted = _lora_node(stage)
    if stored is not None and _plain(stored) != wanted:
        given = "null" if wanted is None else f"rank {wanted['rank']} on {', '.join(wanted['target_modules'])}"
        raise InvalidInput(
            f"model.lora ({given}) is not allowed: {folder} was made with {_one_line(_plain(stored))}; set the same, or start from "
            "what `r1 export` makes of it, where adapters are merged into the weights"
        )


def _one_line(lora: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in lora.items() if not key.startswith("_"))


def deepseek_config(source: HFFolder) -> ModelConfig:
    """The shape of a DeepSeek checkpoint, with no more MTP modules than its files hold."""
    try:
        config = config_from_hf(source.config)
    except (TypeError, ValueError, AttributeError) as error:  # text where a number belongs, a list where an object does
        if isinstance(error, InvalidInput):
            raise
        raise InvalidInput(f"{source.folder}/config.json is not allowed: {error}") from error
    depth = min(config.mtp_depth, stored_mtp_depth(iter(source.stored), config.n_layers))
    return dataclasses.replace(config, mtp_depth=depth)


def _deepseek_node(base: ImportedModel) -> dict[str, Any]:
    """The `model` node of a DeepSeek checkpoint."""
    config = deepseek_config(base.source)
    node = dataclasses.asdict(config)
    del node["vocab_size"]  # see models.vocab_size_of
    if config.yarn is not None:
        node["yarn"] = {"_target_": _path(type(config.yarn)), **node["yarn"]}
    return {"_target_": _path(ModelConfig), **node}


def _path(target: type) -> str:
    return f"{target.__module__}.{target.__qualname__}"


def _with_model(stage: StageConfig, node: Mapping[str, Any]) -> StageConfig:
    config = stage.config.copy()
    OmegaConf.set_struct(config, False)
    config.model = OmegaConf.create(dict(node))
    OmegaConf.set_struct(config, True)
    return dataclasses.replace(stage, config=config)


def refuse_directives(value: Any, where: str) -> None:
    """Raise `InvalidInput` where Hydra would act on what `config.json` holds: keys such as `_target_`, and interpolations."""
    refuse_interpolations(value, where)
    _refuse_private_keys(value, where)


def _refuse_private_keys(value: Any, where: str) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            if str(key).startswith("_"):
                raise InvalidInput(f"{where}: the key {key!r} is not allowed")
            _refuse_private_keys(item, where)
    elif isinstance(value, list):
        for item in value:
            _refuse_private_keys(item, where)
