"""Reads the stored configuration of an artefact: a file from anywhere, checked before the code that it names is imported."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from r1_lightning.run.checks.validate import validate
from r1_lightning.run.config.stored import load_stored
from r1_lightning.run.config.targets import refuse_foreign_targets


def read_config(path: Path, trust_targets: bool) -> DictConfig:
    """Return an artefact's resolved configuration, checked before any code that it names is imported. Raises `InvalidInput`.

    Loggers and callbacks are left out, since only training needs them: a user's own are not imported and cannot fail.
    """
    config = load_stored(path)
    for key in ("logger", "callbacks"):
        config.pop(key, None)
    if not trust_targets:
        refuse_foreign_targets(OmegaConf.to_container(config))
    validate(config)
    return config
