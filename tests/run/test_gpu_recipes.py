"""The recipes of R1-Zero for one GPU, rehearsed on the CPU: a tiny model in the place of Qwen, a dozen questions, two steps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from r1_lightning.run.checks.validate import validate
from r1_lightning.run.config.compose import compose_stage, composing
from tests.run.stages.test_train import metrics_rows
from tests.support.commands import train
from tests.support.hf_folders import dense_folder

Captured = pytest.CaptureFixture[str]
# experiment -> the model that stands in, (steps, held-out problems, new tokens)
RECIPES = {"r1_zero_qwen_0_5b": ("qwen2", (233, 1319, 1024)), "r1_zero_qwen3_0_6b": ("qwen3", (50, 500, 2048))}
SMALL = [
    "rollout.prompts_per_rollout=2",
    "rollout.group_size=2",
    "rollout.micro_batches=1",
    "rollout.max_new_tokens=16",
    "rollout.row_tokens=256",
    "rollout.max_rows=4",
]


def questions(folder: Path) -> Path:
    """Data of both tasks' own formats: GSM8K's marked answer, MATH's boxed one."""
    sums = [(f"What is {number} plus 1?", number + 1) for number in range(12)]
    gsm8k = [{"question": asked, "answer": f"Add one.\n#### {answer}"} for asked, answer in sums]
    math = [
        {"problem": asked, "solution": f"It is $\\boxed{{{answer}}}$.", "answer": str(answer), "level": "Level 1"}
        for asked, answer in sums
    ]
    for name, rows in {"gsm8k": gsm8k, "math": math, "math500": math}.items():
        (folder / name).mkdir(parents=True)
        for split, part in (("train", rows[:8]), ("test", rows[8:])):
            (folder / name / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    return folder


@pytest.mark.parametrize("experiment", RECIPES)
def test_they_are_r1_zero_from_a_published_checkpoint(experiment: str) -> None:
    """R1 equation 4: accuracy and format weigh the same, in the prompt of table 1; 256 completions of a policy step."""
    with composing():
        composed = compose_stage([f"experiment={experiment}"])
    config = composed.config
    validate(config)
    assert composed.stage == "grpo" and config.model["_target_"].endswith("HFModelConfig")
    assert config.task.template == "r1_zero" and dict(config.reward.weights) == {"accuracy": 1.0, "format": 1.0}
    assert config.rollout.prompts_per_rollout * config.rollout.group_size == 256
    assert (config.optim.lr, config.stage.reference_refresh_steps) == (1e-6, 400)
    evaluation = config.stage.evaluation
    size = (config.stage.max_steps, evaluation.problems, evaluation.max_new_tokens)
    assert size == RECIPES[experiment][1]
    assert config.rollout.row_tokens == config.rollout.max_new_tokens + 512


@pytest.mark.slow
@pytest.mark.parametrize("experiment", RECIPES)
def test_they_run_from_a_tiny_checkpoint(experiment: str, tmp_path: Path, capsys: Captured) -> None:
    checkpoint = dense_folder(tmp_path / "tiny", RECIPES[experiment][0])
    done = train(
        [
            f"experiment={experiment}",
            f"init_from={checkpoint}",
            "debug=fast",
            *SMALL,
            "logger=none",
            f"paths.data={questions(tmp_path / 'data')}",
            f"paths.root={tmp_path / 'runs'}",
        ],
        capsys,
    )
    assert done.code == 0, done.err
    assert len(metrics_rows(tmp_path / "runs", "grpo")) == 2
