"""A planned stage finds what is there of it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from r1_lightning.artefacts import store
from r1_lightning.run.graph.node import Node


def test_it_finds_its_own_artefact_only(tmp_path: Path) -> None:
    stage: Any = SimpleNamespace(stage="grpo", config=SimpleNamespace(paths=SimpleNamespace(root=str(tmp_path))))
    node, other = Node(stage, "ab" * 32, {}), Node(stage, "cd" * 32, {})
    assert node.found() is None
    made = store.create(node.root, "grpo", "tiny", "sums", node.fingerprint)
    found = node.found()
    assert found is not None and found.folder == made.folder and not found.complete
    assert other.found() is None
