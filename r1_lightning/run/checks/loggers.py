"""Checks of `logger`: each entry must be a logger by its `_target_`, and its package must be installed."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from omegaconf import DictConfig

from r1_lightning.types.errors import InvalidInput, require

BOARD = "r1_lightning.run.stages.board.Board"  # TensorBoard, in an order for people
# Loggers of Lightning whose package is an extra of ours -> (the package's module, the extra).
EXTRAS = {
    "WandbLogger": ("wandb", "wandb"),
    "MLFlowLogger": ("mlflow", "mlflow"),
}
SHIPPED = "logger=csv, logger=tensorboard, logger=wandb and logger=mlflow are ready"


def check_loggers(loggers: Mapping[str, Any]) -> None:
    """Raise `InvalidInput` for an entry that is not a logger."""
    for name, node in loggers.items():
        if node is None or (name == "tensorboard" and node is True):  # True: the form of early configurations
            continue
        allowed = (
            f"a logger is a mapping with a _target_; {SHIPPED}, and +logger.NAME={{_target_: CLASS, ...}} adds one"
        )
        require(isinstance(node, Mapping) and "_target_" in node, f"logger.{name}", node, allowed)


def check_logger_packages(config: DictConfig) -> None:
    """Raise `InvalidInput` if a logger's package is missing; for new runs only, since reading an old one needs no logger."""
    for name, node in (config.get("logger") or {}).items():
        if not isinstance(node, Mapping):
            continue
        module, extra = EXTRAS.get(str(node["_target_"]).rpartition(".")[2], ("", ""))
        if module and find_spec(module) is None:
            raise InvalidInput(
                f"logger.{name} is not allowed: {module} is not installed; pip install 'r1_lightning[{extra}]' brings it"
            )
