"""R1's published chain as experiments: what each begins with, in which form, and that a step is made of parts of a row."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from r1_lightning.run.checks.validate import validate
from r1_lightning.run.config.compose import compose_stage, composing
from r1_lightning.run.config.stage_config import resolved
from r1_lightning.run.cost.stage_cost import EmptyStage
from r1_lightning.run.graph.node import Node
from r1_lightning.run.graph.plan import plan

BASE = "paper_v3_base"
# experiment -> (stage, template, {role: the experiment that makes it}); R1v2 figure 2
CHAIN: dict[str, tuple[str, str, dict[str, str]]] = {
    BASE: ("pretrain", "r1_zero", {}),
    "paper_r1_zero": ("grpo", "r1_zero", {"base": BASE}),
    "paper_r1_cold_start": ("sample", "r1_zero", {"base": "paper_r1_zero"}),
    "paper_r1_dev1": ("sft", "r1", {"base": BASE, "data": "paper_r1_cold_start"}),
    "paper_r1_stage_1": ("grpo", "r1", {"base": "paper_r1_dev1"}),
    "paper_r1_800k": ("sample", "r1", {"base": "paper_r1_stage_1"}),
    "paper_r1_dev3": ("sft", "r1", {"base": BASE, "data": "paper_r1_800k"}),
    "paper_r1_helpful": ("reward_model", "r1", {"base": BASE}),
    "paper_r1_safety": ("reward_model", "r1", {"base": BASE}),
    "paper_r1_stage_2": (
        "grpo",
        "r1",
        {"base": "paper_r1_dev3", "helpful": "paper_r1_helpful", "safety": "paper_r1_safety"},
    ),
}
RL = [name for name, (stage, *_) in CHAIN.items() if stage == "grpo"]


@pytest.fixture(autouse=True)
def hydra() -> Iterator[None]:
    with composing():
        yield


@pytest.fixture
def data(tmp_path: Path) -> str:
    """Preferences of two lines each, in place of those that were not published."""
    folder = tmp_path / "preferences"
    folder.mkdir()
    pairs = [
        {"prompt": f"Say {n}", "chosen": f"{n}", "rejected": "no", "chosen_score": 9, "rejected_score": 1}
        for n in range(20)
    ]
    labels = [{"prompt": f"How to {n}?", "response": "Like this.", "label": n % 2 == 0} for n in range(20)]
    for name, rows in (("helpful", pairs), ("safety", labels)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return f"paths.data={tmp_path}"


@pytest.mark.parametrize("name", CHAIN)
def test_each_is_what_it_says(name: str, data: str) -> None:
    stage, template, inputs = CHAIN[name]
    composed = compose_stage([f"experiment={name}", data])
    validate(composed.config)
    assert (composed.stage, composed.config.task.template) == (stage, template)
    assert {role: spec.experiment for role, spec in composed.inputs.items()} == inputs
    assert composed.choices["model"] == "v3_671b"


@pytest.mark.parametrize("name", RL)
def test_rl_is_by_the_printed_equation_and_in_parts_of_one_row(name: str, data: str) -> None:
    """R1 eq 1: one ratio per completion. 512 completions of a step in at most 512 rows: each part is one."""
    config = compose_stage([f"experiment={name}", data]).config
    assert config.stage.objective["_target_"].endswith(".SequenceLevelGRPO")
    rollout = config.rollout
    assert rollout.micro_batches == rollout.prompts_per_rollout * rollout.group_size // rollout.minibatches_per_rollout
    assert rollout.row_tokens >= 4096 + (rollout.longer_max_new_tokens or rollout.max_new_tokens)
    stage = EmptyStage.of(resolved(config), None)
    whole = EmptyStage.of(resolved(compose_stage([f"experiment={name}", data, "rollout.micro_batches=1"]).config), None)
    parts, together = (sum(line.size for line in one.update_memory()) for one in (stage, whole))
    assert together > 400 * parts


@pytest.mark.parametrize("name", [name for name, (stage, *_) in CHAIN.items() if stage in ("sft", "reward_model")])
def test_the_others_go_in_parts_of_one_row_as_well(name: str, data: str) -> None:
    node = compose_stage([f"experiment={name}", data]).config.data
    assert node.micro_batches == node.get("examples_per_batch", node.get("items_per_batch"))


def names(node: Node) -> Iterator[str]:
    yield node.stage.name
    for source in node.inputs.values():
        assert isinstance(source, Node)
        yield from names(source)


def test_the_whole_chain_is_planned(data: str) -> None:
    """The last stage needs all others, and one base for all of them."""
    target = plan(compose_stage(["experiment=paper_r1_stage_2", data]))
    assert set(names(target)) == set(CHAIN)

    def bases(node: Node) -> Iterator[str]:
        if node.stage.name == BASE:
            yield node.fingerprint
        for source in node.inputs.values():
            assert isinstance(source, Node)
            yield from bases(source)

    assert len(set(bases(target))) == 1
