"""Moved classes: each former name leads to the class, a fingerprint keeps the first, and the table itself is sound."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
from hydra.utils import get_object
from omegaconf import OmegaConf

from r1_lightning.artefacts import store
from r1_lightning.run.checks.stored_config import read_config
from r1_lightning.run.commands import evaluate_command
from r1_lightning.run.config.compose import compose_stage, composing
from r1_lightning.run.config.moved_names import MOVES, NAMES, MovedNames, use_present_names, with_names
from r1_lightning.run.config.stored import read_settings
from r1_lightning.run.config.targets import refuse_foreign_targets
from r1_lightning.run.graph.fingerprints import stage_fingerprint
from r1_lightning.types.errors import InvalidInput
from tests.support.commands import folder, overrides, train

FORMER, PRESENT = "r1_lightning.tasks.comparison.ComparisonTask", "r1_lightning.tasks.logic.ComparisonTask"

# A: x.A -> y.A -> z.A; B: x.B -> y.B
NAMES_BY_HAND = MovedNames([("x.A", "y.A"), ("x.B", "y.B"), ("y.A", "z.A")])


@pytest.mark.parametrize(
    ("name", "first", "present"),
    [("x.A", "x.A", "z.A"), ("y.A", "x.A", "z.A"), ("z.A", "x.A", "z.A"), ("y.B", "x.B", "y.B"), ("x.C", "x.C", "x.C")],
)
def test_names_by_hand(name: str, first: str, present: str) -> None:
    assert (NAMES_BY_HAND.first(name), NAMES_BY_HAND.present(name)) == (first, present)


def test_a_configuration_gets_present_names_everywhere_and_nothing_else_changes() -> None:
    text = """
    a: {_target_: x.A, name: x.A, b: [{_target_: y.A}, x.A, [{c: {_target_: z.A, d: null}}]]}
    _target_: x.B
    other: {_target_: x.A.call, 3: {_target_: x.B}, e: '???', f: '${a.name}', g: {_target_: '${a.name}'}}
    h: null
    """
    config = OmegaConf.create(text)
    OmegaConf.set_struct(config, True)
    use_present_names(config, NAMES_BY_HAND)
    wanted = {
        "a": {
            "_target_": "z.A",
            "name": "x.A",
            "b": [{"_target_": "z.A"}, "x.A", [{"c": {"_target_": "z.A", "d": None}}]],
        },
        "_target_": "y.B",
        "other": {
            "_target_": "x.A.call",
            3: {"_target_": "y.B"},
            "e": "???",
            "f": "${a.name}",
            "g": {"_target_": "${a.name}"},
        },
        "h": None,
    }
    assert OmegaConf.to_container(config, resolve=False) == wanted


def test_plain_values_are_renamed_in_a_copy() -> None:
    node = {"_target_": "z.A", "b": [{"_target_": "y.B", "c": "z.A"}], "d": {"_target_": {"_target_": "y.A"}}}
    before = {"_target_": "z.A", "b": [{"_target_": "y.B", "c": "z.A"}], "d": {"_target_": {"_target_": "y.A"}}}
    assert with_names(node, NAMES_BY_HAND.first) == {
        "_target_": "x.A",
        "b": [{"_target_": "x.B", "c": "z.A"}],
        "d": {"_target_": {"_target_": "x.A"}},
    }
    assert node == before


def test_every_name_in_the_table_is_used_once() -> None:
    """No name is left twice or taken twice, so no two classes share a history; and no class returns to a name that it left."""
    left, taken = [before for before, _ in MOVES], [after for _, after in MOVES]
    assert len(set(left)) == len(left) and len(set(taken)) == len(taken)
    for number, after in enumerate(taken):
        assert after not in left[: number + 1]


@pytest.mark.parametrize(("before", "after"), MOVES)
def test_a_former_name_is_free_and_leads_to_a_class_of_ours(before: str, after: str) -> None:
    present = NAMES.present(before)
    found = get_object(present)
    assert present == NAMES.present(after) and before.startswith("r1_lightning.")
    assert isinstance(found, type) and f"{found.__module__}.{found.__qualname__}" == present
    module, _, name = before.rpartition(".")
    is_there = importlib.util.find_spec(module) is not None
    assert not is_there or not hasattr(importlib.import_module(module), name)


# ------------------------------------------------------------------------------------------------- a class that has moved


def test_what_was_typed_or_stored_before_a_move_is_the_same(tmp_path: Path) -> None:
    with composing():
        stage = compose_stage(["stage=grpo", "task=comparison"])
        typed = compose_stage(["stage=grpo", "task=comparison", f"task.source._target_={FORMER}"])
    assert stage.config.task.source["_target_"] == typed.config.task.source["_target_"] == PRESENT
    assert stage_fingerprint(typed, {}) == stage_fingerprint(stage, {})
    path = tmp_path / "config.yaml"
    text = OmegaConf.to_yaml(typed.config, resolve=True)
    assert text.count(PRESENT) == 1
    path.write_text(text.replace(PRESENT, FORMER))
    assert read_settings(path)["task"]["source"]["_target_"] == PRESENT
    assert read_config(path, trust_targets=False).task == stage.config.task


@pytest.mark.parametrize(
    "target", [f"{FORMER}.train_problem", "r1_lightning.tasks.comparison.Comparison", "comparison"]
)
def test_only_the_exact_names_of_the_table_are_ours(target: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(f"task: {{source: {{_target_: {target}}}}}\n")
    with pytest.raises(InvalidInput, match=r"_target_='.*' is not allowed"):
        read_config(path, trust_targets=False)
    with pytest.raises(
        InvalidInput, match=r"_target_='.*' is not allowed"
    ):  # a configuration that came in by another way
        refuse_foreign_targets({"a": {"_target_": FORMER}})


@pytest.mark.slow
def test_a_run_from_before_a_move_is_found_measured_and_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*overrides(tmp_path, grpo_steps=2, evaluation=False), "task=comparison"]
    shared = [word for word in words if not word.startswith(("stage", "rollout", "+reward"))]
    pretrain = [*shared, "stage=pretrain", "stage.max_steps=2", "stage.evaluation=null"]
    made = train(pretrain, capsys)
    assert made.code == 0, made.err
    base = folder(tmp_path, "pretrain")
    config = base / store.CONFIG
    assert config.read_text().count(PRESENT) == 1
    config.write_text(config.read_text().replace(PRESENT, FORMER))  # as it was stored before
    again = train(pretrain, capsys)
    assert again.code == 0 and again.out.startswith(f"pretrain: reusing {base} ")
    monkeypatch.setattr(
        sys, "argv", ["r1 evaluate", str(base), "--problems", "2", "--samples", "1", "--max-new-tokens", "8"]
    )
    assert evaluate_command.main() == 0 and "2 held-out problems" in capsys.readouterr().out
    trained = train([*words, f"init_from={base}", f"task.source._target_={FORMER}"], capsys)
    assert trained.code == 0, trained.err
    assert PRESENT in (folder(tmp_path, "grpo") / store.CONFIG).read_text()
