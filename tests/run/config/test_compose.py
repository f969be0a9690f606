"""Composition: what the maker of an input shares with its child, and what it does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import r1_lightning
from r1_lightning.run.config.compose import compose_parent, compose_stage, composing, config_folder, options
from r1_lightning.run.config.stage_config import StageConfig
from r1_lightning.types.errors import InvalidInput
from tests.run.conftest import FAKE_CONFIGS, REAL_CONFIGS

Parent = Callable[..., StageConfig]


@pytest.fixture
def parent() -> Iterator[Parent]:
    """`parent(overrides)`: the base model of the GRPO stage that these overrides ask for."""
    with composing(FAKE_CONFIGS):
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


def test_an_experiment_as_input_takes_what_was_typed_and_not_what_the_childs_experiment_says(parent: Parent) -> None:
    """`wide_run` has a wide model and seed 3 for itself; the experiment it begins with says nothing of either."""
    begun = "stage.inputs.base={experiment: first}"
    own = parent("experiment=wide_run", begun)
    assert (own.config.model.d_model, own.config.seed, own.config.stage.max_steps) == (8, 0, 11)
    typed = parent("experiment=wide_run", begun, "seed=9", "model.rank=7", "paths.root=x", "optim.lr=0.7", "model=wide")
    assert (typed.config.seed, typed.config.model.d_model, typed.config.model.rank) == (9, 16, 7)
    assert typed.config.paths.root == "x" and typed.config.optim.lr != 0.7
    told = parent("experiment=wide_run", "stage.inputs.base={experiment: first, overrides: ['seed=5']}", "seed=9")
    assert told.config.seed == 5, "what the input says has the last word"


def test_what_was_typed_reaches_the_experiments_below(parent: Parent) -> None:
    second = parent("stage=grpo", "stage.inputs.base={experiment: second}", "seed=9", "stage.max_steps=3")
    first = compose_parent(second, "base")
    assert (second.config.seed, first.config.seed, first.config.stage.max_steps) == (9, 9, 11)
    assert compose_parent(first, "base").config.seed == 9


BESIDE = "+task@stage.beside=sums"  # a task put below `stage` under a name: not the graph's task


def test_an_option_put_elsewhere_concerns_its_own_stage_alone() -> None:
    """`GROUP@PACKAGE=OPTION` chooses nothing for the whole graph, neither where a child types it nor in an input's overrides."""
    with composing(FAKE_CONFIGS):
        child = compose_stage(["stage=grpo", "stage.inputs.base={experiment: first}", "seed=9", BESIDE])
        assert "beside" in child.config.stage and child.cli_overrides == ("seed=9",)
        made = compose_parent(child, "base")
        assert "beside" not in made.config.stage and made.cli_overrides == ("seed=9",) and made.config.seed == 9
        told = compose_stage(["stage=grpo", f"stage.parent_overrides=['{BESIDE}']", "task.source.folder=the_childs"])
        parent = compose_parent(told, "base").config
        assert "beside" in parent.stage and parent.task.source.folder == "the_childs"


def test_a_benchmark_is_kept_out_of_a_set_that_an_experiment_samples() -> None:
    """As docs/guide.md says it: the experiments below have no `stage.benchmarks`."""
    with composing(REAL_CONFIGS):
        child = compose_stage(["experiment=r1_800k_tiny", "+task@stage.benchmarks.other=comparison", "seed=9"])
        assert child.config.stage.benchmarks.other.source._target_.endswith("ComparisonTask")
        base = compose_parent(child, "base")
        assert base.name == "r1_dev2_tiny" and base.config.seed == 9 and "benchmarks" not in base.config.stage


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


SCORER = '+stage.inputs.score={stage: scorer, overrides: ["optim.lr=0.5","rollout.group_size=9"]}'


@pytest.fixture
def scorer() -> Iterator[Parent]:
    """`scorer(overrides)`: the maker of GRPO's second input, which begins with a base as well."""
    with composing(FAKE_CONFIGS):
        yield lambda *overrides: compose_parent(compose_stage(["stage=grpo", *overrides]), "score")


def test_an_input_has_overrides_of_its_own(scorer: Parent) -> None:
    made = scorer(SCORER, "model=wide", "optim.lr=0.7", 'stage.parent_overrides=["optim.lr=0.02"]')
    assert (made.stage, made.config.optim.lr, made.config.rollout.group_size) == ("scorer", 0.5, 9)
    assert made.config.model.d_model == 16, "shared values are shared with it, too"


def test_another_input_begins_with_the_same_base(scorer: Parent) -> None:
    """What is said of the base holds for the base of every input, and for that base only."""
    child = ("+stage.inputs.score=scorer", 'stage.parent_overrides=["optim.lr=0.02"]', "init_from=somewhere")
    made = scorer(*child)
    assert made.config.init_from == "somewhere" and list(made.config.stage.parent_overrides) == ["optim.lr=0.02"]
    assert made.config.optim.lr != 0.02
    own = (
        "+stage.inputs.score={stage: scorer, overrides: ['init_from=elsewhere', 'stage.parent_overrides=[\"seed=3\"]']}"
    )
    told = scorer(own, *child[1:])
    assert told.config.init_from == "elsewhere" and list(told.config.stage.parent_overrides) == ["seed=3"]
    without_base = scorer("+stage.inputs.score=pretrain", *child[1:])
    assert without_base.config.init_from is None, "what begins with nothing is given nothing to begin with"


def test_a_group_that_is_passed_on_was_not_typed(scorer: Parent) -> None:
    """A folder's model beside a typed one is refused; passing the child's choice on is no typing."""
    assert scorer(SCORER, "model=wide").overrides == ("optim.lr=0.5", "rollout.group_size=9")


def test_the_configurations_lie_in_an_installed_package_or_beside_that_of_a_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert config_folder() == REAL_CONFIGS
    monkeypatch.setattr(r1_lightning, "__file__", str(tmp_path / "r1_lightning" / "__init__.py"))
    (tmp_path / "r1_lightning").mkdir()
    assert config_folder() == tmp_path / "configs"
    (tmp_path / "r1_lightning" / "configs").mkdir()
    assert config_folder() == tmp_path / "r1_lightning" / "configs"
