"""Starts a stage from a HuggingFace checkpoint: `init_from=FOLDER`, or `hub:OWNER/NAME`, in place of an artefact of ours.

The folder's `config.json` defines the stage's `model`: for the DeepSeek family its numbers become those of our own backbone; for
another family all fields are kept, and `transformers` makes the model (`model=hf`, which need not be given). Both are written into
the stage's configuration, so that its artefact no longer needs the folder, and a later stage that starts from the artefact finds
them there.

`config.json` is untrusted: values that Hydra would act on (interpolations, keys such as `_target_`) are refused.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from r1_lightning.artefacts import store
from r1_lightning.artefacts.described import describe_model
from r1_lightning.artefacts.hf_folder import HFFolder, ImportedModel, import_model, is_hf_folder
from r1_lightning.artefacts.hub import described_folder, import_hub_model, is_hub_name
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


def open_input(folder: str, field: str = "init_from", is_dry: bool = False) -> Artefact:
    """Open and verify the artefact, or the HuggingFace checkpoint, in `folder`; errors name the config key `field`.

    `hub:OWNER/NAME[@REVISION]` in place of a folder names a model of the hub. `is_dry` reads no weights of a checkpoint, which may
    be a `config.json` alone.
    """
    path = Path(folder).expanduser()
    try:
        if is_dry and is_hub_name(folder):
            return describe_model(described_folder(folder))
        if is_dry and (is_hf_folder(path) or path.suffix == ".json"):
            return describe_model(path)
        if is_hub_name(folder):
            return import_hub_model(folder)
        if is_hf_folder(path):
            return import_model(path)
        artefact = store.open_artefact(path)
        store.verify(artefact)
    except InvalidInput as error:
        raise InvalidInput(f"{field}: {error}") from error
    return artefact


def with_model_of(stage: StageConfig, base: Artefact | None) -> StageConfig:
    """Return `stage` with the model of its input: of a HuggingFace folder, or of an artefact unless the command line sets `model`.

    A model of `transformers` becomes `model=hf`. Raises InvalidInput if the command line sets another model beside a folder that
    defines it, or if `model=hf` is given without a checkpoint.
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
    """True if the command line sets the model."""
    return bool(_typed_model(stage))


def _typed_model(stage: StageConfig) -> list[str]:
    return [override for override in stage.overrides if override.lstrip("+").startswith(("model=", "model."))]


def _as_theirs(stage: StageConfig, base: Artefact | None) -> StageConfig:
    """Return `stage` with `model=hf` and the input's adapters if the input is a model of `transformers` and no model is given."""
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
    """Return the `model` node of any artefact or folder, for a second model beside the stage's own; errors name `field`."""
    if not isinstance(artefact, ImportedModel):
        return _plain(read_model(artefact.folder / store.CONFIG).model)
    if artefact.source.config.get("model_type") in FAMILIES:
        return _deepseek_node(artefact)
    fields = {name: value for name, value in artefact.source.config.items() if is_of_the_model(name)}
    refuse_directives(fields, f"{field}: {artefact.folder}/config.json")
    return {"_target_": _path(HFModelConfig), FIELDS: fields}


def _stored_node(base: Artefact) -> dict[str, Any]:
    """Return the stored `model` node of an artefact, which may have started from a folder whose shape no option here has."""
    return _plain(read_model(base.folder / store.CONFIG).model)


def _plain(node: DictConfig) -> dict[str, Any]:
    plain = OmegaConf.to_container(node, resolve=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _hf_fields(stage: StageConfig, base: Artefact | None) -> dict[str, Any]:
    """Return the fields of the base's `config.json`, from the folder itself or from an artefact that started from it."""
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
    """Return the stage's `lora` with every field, so that a default and the same value written out are equal."""
    node = stage.config.model.get("lora")
    if node is None:
        return None
    settings = dataclasses.asdict(instantiate(node))
    return {"_target_": _path(LoraSettings), **settings, "target_modules": list(settings["target_modules"])}


def _refuse_other_adapters(stored: DictConfig | None, stage: StageConfig, folder: Path) -> None:
    """Raise InvalidInput if the input has adapters with other settings; an input without adapters takes any."""
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
    """Return the shape of a DeepSeek checkpoint, with no more MTP modules than its files hold."""
    try:
        config = config_from_hf(source.config)
    except (TypeError, ValueError, AttributeError) as error:  # text where a number belongs, a list where an object does
        if isinstance(error, InvalidInput):
            raise
        raise InvalidInput(f"{source.folder}/config.json is not allowed: {error}") from error
    if not source.stored:  # only described
        return config
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
    """Raise `InvalidInput` if `config.json` holds text that Hydra would act on: keys such as `_target_`, interpolations."""
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
