"""A planned stage finds what is there of it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from r1_lightning.artefacts import store
from r1_lightning.run.graph.node import Node, part_of, stages_of
from r1_lightning.types.errors import InvalidInput


def test_it_finds_its_own_artefact_only(tmp_path: Path) -> None:
    stage: Any = SimpleNamespace(stage="grpo", config=SimpleNamespace(paths=SimpleNamespace(root=str(tmp_path))))
    node, other = Node(stage, "ab" * 32, {}), Node(stage, "cd" * 32, {})
    assert node.found() is None
    made = store.create(node.root, "grpo", "tiny", "sums", node.fingerprint)
    found = node.found()
    assert found is not None and found.folder == made.folder and not found.complete
    assert other.found() is None


def test_the_stages_of_a_graph_come_once_and_inputs_first() -> None:
    def stage(name: str, digit: str, **inputs: Node) -> Node:
        named: Any = SimpleNamespace(stage=name)
        return Node(named, digit * 64, inputs)

    base = stage("pretrain", "a")
    cold, helpful = stage("sft", "b", base=base), stage("reward_model", "c", base=base)
    target = stage("grpo", "d", base=cold, helpful=helpful)
    assert list(stages_of(target)) == [base, cold, helpful, target]
    assert part_of(target, None) is target and part_of(target, "sft-bbbbbbbbbb") is cold
    with pytest.raises(InvalidInput, match=r"^only='sft' is not allowed: it must be one of pretrain-aaaaaaaaaa, sft-"):
        part_of(target, "sft")
