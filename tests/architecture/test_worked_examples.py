"""The examples of docs/architecture.md do what the page says, taken from the page."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from r1_lightning.functional.policy_loss import Objective, SampledTokens
from r1_lightning.run.checks.validate import validate
from r1_lightning.run.config.compose import compose_stage, composing
from r1_lightning.run.config.declarations import batch_type_of
from r1_lightning.run.graph.plan import plan
from r1_lightning.stages.base import AdamWConfig
from r1_lightning.tasks.dataset_task import Adaptor
from r1_lightning.tasks.fields import Row
from r1_lightning.types.errors import InvalidInput
from tests.architecture.house import ROOT
from tests.model.tiny import pack
from tests.support.miniature import Miniature, backbone, backwards

PAGE = ROOT / "docs" / "architecture.md"
FILES = [("my_objectives", "objective", "class Reinforce"), ("my_stages", "stage", "class NextToken")]


def example(language: str, contains: str) -> str:
    """The only code block of the page in `language` that contains `contains`."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    (found,) = [block for block in blocks if contains in block]
    return found


def defined(source: str, name: str) -> Any:
    """What a block of Python defines under `name`."""
    space: dict[str, Any] = {"__name__": "example"}
    exec(compile(source, str(PAGE), "exec", dont_inherit=True), space)
    return space[name]


@pytest.fixture
def readers_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the examples' own files, where a reader types commands; the configurations with the examples' options."""
    configs = shutil.copytree(ROOT / "configs", tmp_path / "configs")
    for module, group, contains in FILES:
        (tmp_path / f"{module}.py").write_text(example("python", contains), encoding="utf-8")
        (configs / group / "mine.yaml").write_text(example("yaml", module), encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for module, _, _ in FILES:
        sys.modules.pop(module, None)


def test_the_objective_is_what_its_docstring_says() -> None:
    # Two completions of 2 and 1 tokens: -(1 * -0.5 + 1 * -1.5 - 2 * -3) / 3 = -(-2 + 6) / 3 = -4/3
    objective = defined(example("python", "class Reinforce"), "Reinforce")()
    assert isinstance(objective, Objective)
    logprobs = torch.tensor([-0.5, -1.5, -3.0])
    tokens = SampledTokens(
        policy_logprobs=logprobs,
        old_logprobs=logprobs,
        sampler_logprobs=logprobs,
        ref_logprobs=None,
        sequence_ids=torch.tensor([0, 0, 1]),
        advantages=torch.tensor([1.0, 1.0, -2.0]),
        completion_tokens=torch.tensor([2.0, 1.0]),
        n_sequences=2,
        n_tokens=3,
    )
    assert objective(tokens).loss.item() == pytest.approx(-4 / 3, abs=1e-6)


def test_the_objective_is_found_by_its_option(readers_folder: Path) -> None:
    with composing(readers_folder / "configs"):
        config = compose_stage(["stage=grpo", "objective=mine"]).config
    validate(config)
    assert dict(config.stage.objective) == {"_target_": "my_objectives.Reinforce"}


def test_the_stage_is_found_by_its_option_and_planned_with_its_base(readers_folder: Path) -> None:
    with composing(readers_folder / "configs"):
        node = plan(compose_stage(["stage=mine", f"paths.root={readers_folder / 'runs'}"]))
    assert node.stage.stage == "mine" and list(node.inputs) == ["base"]
    assert batch_type_of(node.stage.config.stage) is batch_type_of(node.stage.config.data) is not None


def test_the_stage_learns_the_next_token_alone(tmp_path: Path) -> None:
    """Its loss is pre-training's main loss, which tests/stages/test_pretrain.py compares with loops over tokens."""
    batch = pack([[[1, 2, 3, 4], [5, 6, 7]], [[8, 9], [3], [2, 2, 2]]], 9)
    stage = defined(example("python", "class NextToken"), "NextToken")(backbone(), AdamWConfig(lr=0.01), 1)
    (pretraining,) = backwards(Miniature(max_steps=1).pretrain(), [batch], tmp_path / "a")
    (step,) = backwards(stage, [batch], tmp_path / "b")
    assert step.loss == pytest.approx(pretraining.metrics["train/loss"], rel=1e-6)
    assert step.metrics["train/loss"] == pytest.approx(step.loss, rel=1e-6)


def test_the_adaptor_reads_rows_and_refuses_broken_ones() -> None:
    adaptor: Adaptor = defined(example("python", "class Riddles"), "Riddles")()
    problem = adaptor.to_problem(Row({"riddle": "What is 1+1?", "solution": "2"}, "rows.jsonl, line 1"))
    assert problem is not None and (problem.question, problem.answer) == ("What is 1+1?", "2")
    with pytest.raises(InvalidInput, match=r"rows.jsonl, line 2: the field 'solution' is missing"):
        adaptor.to_problem(Row({"riddle": "What is 1+1?"}, "rows.jsonl, line 2"))
