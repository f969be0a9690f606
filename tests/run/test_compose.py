"""Composition: what the maker of an input shares with its child, and what it does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hydra import initialize_config_dir

from r1_lightning.run.compose import HYDRA_VERSION_BASE, StageConfig, compose_parent, compose_stage, options
from r1_lightning.types.errors import InvalidInput
from tests.run.conftest import FAKE_CONFIGS

Parent = Callable[..., StageConfig]


@pytest.fixture
def parent() -> Iterator[Parent]:
    """`parent(overrides)`: the base model of the GRPO stage that these overrides ask for."""
    with initialize_config_dir(str(FAKE_CONFIGS), version_base=HYDRA_VERSION_BASE):
        yield lambda *overrides: compose_parent(compose_stage(overrides), "base")


def test_shared_values_come_from_the_child(parent: Parent) -> None:
    made = parent("model=wide", "model.rank=7", "seed=9", "trainer.devices=3", "paths.root=x", "+trainer.new=1")
    assert made.stage == "pretrain" and made.choices["model"] == "wide"
    assert (made.config.model.d_model, made.config.model.rank, made.config.seed) == (16, 7, 9)
    assert (made.config.trainer.devices, made.config.trainer.new) == (3, 1)
    assert made.config.paths.root == "x"


def test_own_values_come_from_the_stage_s_option_file(parent: Parent) -> None:
    made = parent("optim.lr=0.7", "rollout.group_size=16", "data.row_tokens=9", "fresh=true", "stage.max_steps=99")
    assert (made.config.optim.lr, made.config.rollout.group_size, made.config.fresh) == (0.003, 4, False)
    assert (made.choices["data"], made.config.data.row_tokens, made.config.stage.max_steps) == ("text", 64, 5)


def test_of_an_experiment_only_the_shared_part_is_passed_on(parent: Parent) -> None:
    made = parent("experiment=wide_run")
    assert (made.config.model.d_model, made.config.model.rank, made.config.seed) == (16, 5, 3)
    assert (made.config.optim.lr, made.config.stage.max_steps) == (0.003, 5)
    assert made.choices["experiment"] is None


def test_debug_holds_for_the_whole_graph(parent: Parent) -> None:
    assert parent("debug=fast").config.stage.max_steps == 1


def test_parent_overrides_have_the_last_word(parent: Parent) -> None:
    made = parent("seed=9", 'stage.parent_overrides=["optim.lr=0.02","model=tiny","seed=4"]', "model=wide")
    assert (made.config.optim.lr, made.config.model.d_model, made.config.seed) == (0.02, 8, 4)
    with pytest.raises(InvalidInput, match="must be a list"):
        parent("stage.parent_overrides=[1]")


def test_options_are_listed(parent: Parent) -> None:
    assert options("model") == ["tiny", "wide"]
    with pytest.raises(
        InvalidInput, match=r"stage=None is not allowed: it must be one of grpo, loop, misspelt, pretrain"
    ):
        parent("~stage")
