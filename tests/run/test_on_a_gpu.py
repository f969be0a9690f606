"""Where work is done: every kind of stage and command on a pretend GPU, whose models never compute on the CPU.

One process runs them all, because loading torch is the largest part of it (see `tests/support/fake_cuda`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import ROOT, SMALL_MODEL
from tests.support.fake_cuda.library import start

HASH = "{_target_: tests.support.miniature.HashReward, name: hash}"
MEASURED = "stage.evaluation={problems: 4, samples: 2, max_new_tokens: 8}"
SHORT = ("rollout.prompts_per_rollout=2", "rollout.group_size=4", "rollout.max_new_tokens=8")
GRPO = (*SHORT, "rollout.minibatches_per_rollout=2", f"+reward.rewards.hash={HASH}", "+reward.weights.hash=1.0")
BASE = ("data.rows_per_batch=4", "optim.warmup_steps=1")


def commands(root: Path) -> dict[str, list[str]]:
    """Every kind of stage, each from the artefacts of those before it, then the commands beside training."""
    model = (*SMALL_MODEL, f"paths.root={root}")
    parents = f'stage.parent_overrides=["stage.max_steps=2","stage.evaluation=null","{BASE[0]}","{BASE[1]}"]'

    def train(stage: str, *words: str) -> list[str]:
        return ["train", f"stage={stage}", *words, *model, *([parents] if stage != "pretrain" else [])]

    return {
        "pretrain": train("pretrain", "stage.max_steps=2", "stage.evaluation=null", *BASE),
        "grpo": train("grpo", "stage.max_steps=2", "stage.reference_refresh_steps=1", *GRPO, MEASURED),
    }


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Name of each command -> its exit code, output, and what the pretend GPU recorded."""
    place = tmp_path_factory.mktemp("gpu")
    asked, answered = place / "commands.json", place / "results.json"
    asked.write_text(json.dumps(commands(place / "runs")), encoding="utf-8")
    process = start("tests.support.fake_cuda.commands", str(asked), str(answered), cwd=ROOT)
    assert process.returncode == 0, process.stderr
    results: dict[str, Any] = json.loads(answered.read_text(encoding="utf-8"))
    return results


def test_every_command_ends_well(done: dict[str, Any]) -> None:
    assert {name: result["err"][-2000:] for name, result in done.items() if result["code"] != 0} == {}


def test_no_model_works_on_the_cpu(done: dict[str, Any]) -> None:
    """A product, an attention or an embedding of tensors on the CPU would be a model beside the idle GPU."""
    assert {name: result["records"]["host_work"] for name, result in done.items()} == {key: {} for key in done}
    assert all(result["records"]["launches"].get("aten::embedding", 0) > 0 for result in done.values())


def test_the_first_line_names_the_gpu_and_its_type(done: dict[str, Any]) -> None:
    for name, result in done.items():
        if result["out"].startswith(f"{name}: planning"):
            assert "on Pretend GPU in BF16 (trainer=auto: torch finds a GPU; BF16" in result["out"].splitlines()[0]


def test_no_operator_lacks_a_deterministic_kernel(done: dict[str, Any]) -> None:
    assert {name: result["records"]["undetermined"] for name, result in done.items()} == {key: {} for key in done}
