"""Reads the stored configuration of an artefact: a file from anywhere, so nothing that it names is imported unchecked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from r1_lightning.run.config.moved_names import use_present_names
from r1_lightning.run.config.targets import refuse_foreign_targets, refuse_interpolations
from r1_lightning.types.errors import InvalidInput


def read_model(path: Path) -> DictConfig:
    """Return the stored configuration for use of its model only: checks the model's targets, and imports no others."""
    config = load_stored(path)
    model = config.get("model")
    if not isinstance(model, DictConfig) or "_target_" not in model:
        raise InvalidInput(f"config={str(path)!r} is not allowed: it describes no model")
    refuse_foreign_targets({"model": OmegaConf.to_container(model)})
    return config


def read_settings(path: Path) -> dict[str, Any]:
    """Return the stored configuration as plain values; the caller must check values that name code before using them."""
    plain = OmegaConf.to_container(load_stored(path))
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def load_stored(path: Path) -> DictConfig:
    """Return the whole stored configuration, resolved; `InvalidInput` if it cannot be read or holds a live interpolation."""
    try:
        config = OmegaConf.load(path)
        OmegaConf.resolve(config)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise InvalidInput(
            f"config={str(path)!r} is not allowed: it cannot be read ({' '.join(str(error).split())})"
        ) from error
    if not isinstance(config, DictConfig):
        raise InvalidInput(f"config={str(path)!r} is not allowed: it is no configuration of a stage")
    use_present_names(config)
    refuse_interpolations(OmegaConf.to_container(config), str(path))
    return config
