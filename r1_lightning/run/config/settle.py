"""What a composed configuration leaves to be settled before it is read: what an option has for one stage alone.

Hydra composes option after option and knows of no condition, but `debug=fast` needs other values for a stage that samples than for
one that trains: they stand in `for_stage`, by the stage's name, and are put in their places here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from omegaconf import DictConfig, OmegaConf

from r1_lightning.types.errors import require

FOR_STAGE = "for_stage"


def settle(config: DictConfig, stage: str, overrides: Sequence[str]) -> None:
    """Change `config`, that of `stage`, in place; `overrides` are what was typed. Raises `InvalidInput`."""
    _check_reader(config)
    _settle_stage(config, stage, [override.lstrip("+~") for override in overrides])


def _check_reader(config: DictConfig) -> None:
    """InvalidInput where `data.traces` is a mapping or list that names no reader (`file_names` puts one before a file)."""
    given = OmegaConf.select(config, "data.traces")
    known = given is None or (isinstance(given, DictConfig) and "_target_" in given)
    require(
        known, "data.traces", given, "it must be a source by its _target_; a file is named by data.traces.file=FILE"
    )


def _settle_stage(config: DictConfig, stage: str, typed: Sequence[str]) -> None:
    """The values that an option has for this stage alone, in their places; what is typed has the last word."""
    for key, value in ((config.get(FOR_STAGE) or {}).get(stage) or {}).items():
        if not any(re.match(rf"stage\.{key}[.=]", override) for override in typed):
            OmegaConf.update(config, f"stage.{key}", value, force_add=True)
    if FOR_STAGE in config:
        OmegaConf.set_struct(config, False)
        del config[FOR_STAGE]
        OmegaConf.set_struct(config, True)
