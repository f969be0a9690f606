"""Every option and every experiment composes, and every target takes what its file gives it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from hydra import initialize_config_dir

from r1_lightning.run.compose import HYDRA_VERSION_BASE, SHARED_GROUPS, compose_parent, compose_stage, options
from r1_lightning.run.graph import COUNTED
from r1_lightning.run.validate import validate

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
GROUPS = (
    "model",
    "task",
    "data",
    "rollout",
    "reward",
    "optim",
    "precision",
    "trainer",
    "callbacks",
    "logger",
    "launcher",
    "paths",
    "stage",
    "experiment",
    "debug",
)
FILES = sorted(path.relative_to(CONFIGS).with_suffix("").as_posix() for path in CONFIGS.glob("*/*.yaml"))
# Options that fit one stage only.
STAGE_OF = {"data/text": "pretrain", "data/grouped_rollouts": "grpo"}


@pytest.fixture(autouse=True)
def hydra() -> Iterator[None]:
    with initialize_config_dir(str(CONFIGS), version_base=HYDRA_VERSION_BASE):
        yield


def test_the_groups_come_in_the_order_of_the_house() -> None:
    defaults = yaml.safe_load((CONFIGS / "train.yaml").read_text())["defaults"]
    named = [next(iter(item)) for item in defaults if isinstance(item, dict)]
    assert [name for name in named if not name.startswith(("override", "optional"))] == list(GROUPS)
    assert sorted({path.split("/")[0] for path in FILES}) == sorted(GROUPS), "a folder without a group, or the reverse"


def test_every_group_is_shared_or_a_stage_s_own() -> None:
    """What a parent shares with its child, and what counts in a fingerprint, are decided for every group."""
    assert set(SHARED_GROUPS) <= set(GROUPS)
    assert set(COUNTED) - {"seed"} <= set(GROUPS)
    uncounted = set(GROUPS) - set(COUNTED)
    assert uncounted == {"trainer", "callbacks", "logger", "launcher", "paths", "experiment", "debug"}


@pytest.mark.parametrize("file", FILES)
def test_every_option_composes_and_fits_its_target(file: str, shared_dir: Path) -> None:
    group, option = file.split("/")
    stage = [f"stage={STAGE_OF[file]}"] if file in STAGE_OF else []
    config = compose_stage([f"{group}={option}", f"paths.data={shared_dir / 'data'}", *stage])
    validate(config.config)  # raises for a leaf that its target does not take
    assert config.choices[group] == option
    for role, maker in config.input_stages.items():
        parent = compose_parent(config, maker)
        validate(parent.config)
        assert parent.stage == maker, role


@pytest.mark.parametrize("stage", [file.split("/")[1] for file in FILES if file.startswith("stage/")])
def test_a_stage_sets_only_what_is_its_own(stage: str) -> None:
    """A stage's file that changed a shared group would give its inputs another model than itself."""
    content = yaml.safe_load((CONFIGS / "stage" / f"{stage}.yaml").read_text())
    overridden = {key.split("/")[-1] for item in content.pop("defaults", []) for key in item}
    assert not overridden & set(SHARED_GROUPS) and not set(content) & {*SHARED_GROUPS, "seed"}


@pytest.mark.parametrize("file", FILES)
def test_values_are_written_once_and_typed(file: str) -> None:
    """YAML 1.1 reads 1e-3 as text; OmegaConf does not, but a reader's tools do: numbers are written 1.0e-3."""

    def leaves(node: object) -> Iterator[object]:
        for value in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            yield from leaves(value)
        if not isinstance(node, (dict, list)):
            yield node

    for leaf in leaves(yaml.safe_load((CONFIGS / f"{file}.yaml").read_text())):
        assert not (isinstance(leaf, str) and leaf.replace("e-", "").replace(".", "").isdigit()), f"{leaf!r} is text"


def test_options_of_every_group_are_listed() -> None:
    assert set(options("stage")) >= {"pretrain", "grpo"} and set(options("precision")) >= {"fp32", "bf16"}
