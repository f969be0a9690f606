"""Applies the values that an option has for one stage alone, right after composition.

Hydra has no conditions, but `debug=fast` needs other values for a stage that samples than for one that trains. Such values are in
`for_stage`, by the stage's name, and are moved to their places here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from omegaconf import DictConfig, OmegaConf

from r1_lightning.types.errors import require

FOR_STAGE = "for_stage"


def settle(config: DictConfig, stage: str, overrides: Sequence[str]) -> None:
    """Apply the values to `config` of `stage`, in place, except those that command-line `overrides` set. Raises `InvalidInput`."""
    _check_reader(config)
    _settle_stage(config, stage, [override.lstrip("+~") for override in overrides])


def _check_reader(config: DictConfig) -> None:
    """Raise InvalidInput if `data.traces` is a mapping or list without a reader's `_target_` (`file_names` adds it to a file)."""
    given = OmegaConf.select(config, "data.traces")
    known = given is None or (isinstance(given, DictConfig) and "_target_" in given)
    require(
        known, "data.traces", given, "it must be a source by its _target_; a file is named by data.traces.file=FILE"
    )


def _settle_stage(config: DictConfig, stage: str, typed: Sequence[str]) -> None:
    """Move the values for this stage to their places; command-line overrides win."""
    for key, value in ((config.get(FOR_STAGE) or {}).get(stage) or {}).items():
        if not any(re.match(rf"stage\.{key}[.=]", override) for override in typed):
            OmegaConf.update(config, f"stage.{key}", value, force_add=True)
    if FOR_STAGE in config:
        OmegaConf.set_struct(config, False)
        del config[FOR_STAGE]
        OmegaConf.set_struct(config, True)
