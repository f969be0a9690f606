"""A graph of real stages, as small as it gets: pretrain, GRPO, sampling, SFT on what was sampled, comparison of both models.

As a program (`python -m tests.support.stage_graph CONFIGS OVERRIDE ...`) it is `scripts/train.py` with other configurations, whose
process ends by SIGKILL in the middle of a file if it is told to: `DIE_AT="2 grpo-*/checkpoints/last.ckpt"` in its environment
means, while the second such file below paths.root is being written.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from unittest import mock

from r1_lightning.run import cli
from r1_lightning.run.stages.kinds import run_stage
from tests.support.commands import CONFIGS, ROOT, SMALL_MODEL, environment

DIE_AT = "DIE_AT"
STAGES = ("pretrain", "grpo", "sample", "sft", "compare")  # in the order of making

# So small a model answers nothing: a third of its completions is right by a hash, and no rule asks what they say.
BY_HASH = "{_target_: tests.support.miniature.HashReward}"
HASH = f"""
_target_: r1_lightning.rewards.combine.WeightedSum
_convert_: all
rewards: {{accuracy: {BY_HASH}}}
weights: {{accuracy: 1.0}}
from_step: {{}}
on_bad_score: stop
steps: null
"""
MEASURED = "{problems: 4, samples: 2, max_new_tokens: 12}"
EXPERIMENTS = {
    "kill_base": """
defaults: [override /stage: pretrain]
data: {rows_per_batch: 8}
optim: {warmup_steps: 1}
stage: {max_steps: 40}
""",
    "kill_zero": f"""
defaults: [override /stage: grpo, override /reward: hash]
rollout: {{prompts_per_rollout: 4, group_size: 4, minibatches_per_rollout: 4, max_new_tokens: 24}}
stage:
  inputs: {{base: {{experiment: kill_base}}}}
  max_steps: 8
  evaluation: {MEASURED}
""",
    "kill_set": """
defaults: [override /stage: sample, override /reward: hash]
rollout: {max_new_tokens: 64}
stage:
  inputs: {base: {experiment: kill_zero}}
  problems: 48
  samples: 4
  problems_per_block: 12
  held_out_questions: 20
  rules:
    readable: {mixed_tolerance: 1.0, max_paragraph_chars: 10000, max_repeated_share: 1.0}
    question_language: false
    one_per_equations: false
    min_edit_distance: 0.0
""",
    "kill_student": f"""
defaults: [override /stage: sft]
data: {{examples_per_batch: 4}}
stage:
  inputs: {{base: {{experiment: kill_base}}, data: {{experiment: kill_set}}}}
  max_steps: 8
  evaluation: {MEASURED}
optim: {{lr: 0.005}}
""",
    "kill_table": f"""
defaults: [override /stage: compare]
stage:
  inputs: {{zero: {{experiment: kill_zero}}, student: {{experiment: kill_student}}}}
  evaluation: {MEASURED}
""",
}


def write_configs(folder: Path) -> Path:
    """The checkout's configurations with those of the graph beside them."""
    shutil.copytree(CONFIGS, folder)
    (folder / "reward" / "hash.yaml").write_text(HASH, encoding="utf-8")
    compare = folder / "stage" / "compare.yaml"
    without_accuracy = compare.read_text(encoding="utf-8").partition("  accuracy:")[0]
    compare.write_text(f"{without_accuracy}  accuracy: {{r1_zero: {BY_HASH}}}\n", encoding="utf-8")
    for name, text in EXPERIMENTS.items():
        (folder / "experiment" / f"{name}.yaml").write_text(f"# @package _global_{text}", encoding="utf-8")
    return folder


def command(configs: Path, root: Path) -> list[str]:
    """What makes the whole graph below `root`, and goes on with it."""
    typed = ["experiment=kill_table", *SMALL_MODEL, "trainer.threads=1", f"paths.root={root}"]
    return [sys.executable, "-m", "tests.support.stage_graph", str(configs), *typed]


def start(configs: Path, root: Path, die_at: str = "") -> subprocess.Popen[bytes]:
    """The command in a process (and a group) of its own, its output thrown away."""
    surroundings, quiet = {**environment(), DIE_AT: die_at}, subprocess.DEVNULL
    return subprocess.Popen(
        command(configs, root), cwd=ROOT, env=surroundings, stdout=quiet, stderr=quiet, start_new_session=True
    )


def main(configs: Path, arguments: list[str]) -> int:
    """The command line of `scripts/train.py`; returns the exit code."""
    sys.argv = ["train.py", *arguments]
    wanted = os.environ.get(DIE_AT)
    if not wanted:
        return cli.main(run_stage, configs)
    number, pattern = wanted.split()
    root = next(Path(argument.partition("=")[2]) for argument in arguments if argument.startswith("paths.root="))
    seen, move = itertools.count(1), os.replace

    def replace(source: str | Path, target: str | Path) -> None:
        inside = Path(target).resolve()
        if inside.is_relative_to(root.resolve()) and inside.relative_to(root.resolve()).match(pattern):
            if next(seen) == int(number):
                os.truncate(source, Path(source).stat().st_size // 2)
                os.kill(os.getpid(), signal.SIGKILL)
        move(source, target)

    with mock.patch.object(os, "replace", replace):
        return cli.main(run_stage, configs)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
