"""What `logger` may hold, and the line for what it may not."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
from omegaconf import OmegaConf

from r1_lightning.run.checks import loggers as logger_rules
from r1_lightning.run.checks.loggers import BOARD, check_logger_packages, check_loggers
from r1_lightning.types.errors import InvalidInput


@pytest.mark.parametrize(
    ("name", "node"),
    [
        ("wandb", True),
        ("wandb", "wandb"),
        ("mlflow", 1),
        ("csv", {"project": "x"}),
        ("mine", []),
        ("tensorboard", False),
    ],
)
def test_what_is_no_logger_is_refused_with_the_way_to_one(name: str, node: Any) -> None:
    with pytest.raises(InvalidInput, match=rf"logger\.{name}=.*_target_.*logger=wandb"):
        check_loggers({name: node})


@pytest.mark.parametrize(("name", "extra"), [("WandbLogger", "wandb"), ("MLFlowLogger", "mlflow")])
def test_a_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch, name: str, extra: str) -> None:
    monkeypatch.setattr(logger_rules, "find_spec", lambda _: None)
    with pytest.raises(
        InvalidInput, match=rf"logger\.x .*{extra} is not installed; pip install 'r1_lightning\[{extra}\]'"
    ):
        check_logger_packages(OmegaConf.create({"logger": {"x": {"_target_": f"lightning.pytorch.loggers.{name}"}}}))


def test_what_is_installed_or_somebody_elses_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logger_rules, "find_spec", importlib.util.find_spec)
    check_loggers({"tensorboard": {"_target_": BOARD}, "mine": {"_target_": "my.Logger"}, "none": None})
    check_loggers({"tensorboard": True})  # artefacts made before loggers were named by _target_
    check_loggers({})
    check_logger_packages(OmegaConf.create({"logger": {"tensorboard": True, "mine": {"_target_": "my.Logger"}}}))
    check_logger_packages(OmegaConf.create({"logger": None}))
