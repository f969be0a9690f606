"""`stage=sample` over the miniature of 16 characters: completions that end at all lengths, right or wrong by a hash.

As a program (`python -m tests.support.sampling OVERRIDE ...`) it is `scripts/sample.py` with that model, in a process.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from torch import nn

from r1_lightning.artefacts import store
from r1_lightning.rewards.combine import WeightedSum
from r1_lightning.run import cli
from r1_lightning.run.stages import rejection_sampling as sampling
from r1_lightning.run.stages.kinds import run_stage
from r1_lightning.text.chat_template import PLAIN
from tests.support.commands import CONFIGS
from tests.support.miniature import CharTokenizer, HashReward, Miniature, Sums, rollout_config


def parts(config: DictConfig, base: object) -> dict[str, Any]:
    """What `run.build.parts.build_parts` makes, of the miniature."""
    mini = Miniature(seed=config.seed, rollout=rollout_config())
    return {
        "backbone": mini.model,
        "rollout": mini.rollout,
        "source": Sums(),
        "generate": mini.sampler(),
        "tokenizer": CharTokenizer(),
        "template": PLAIN,
        "reward": WeightedSum([HashReward()]),
        "seed": config.seed,
    }


def base_artefact(root: Path) -> Path:
    """Something that can stand as `init_from`; nobody reads its weights here."""
    made = store.create(root, "grpo", "tiny", "sums", "b" * 64)
    store.save_weights(nn.Linear(2, 2), made.weights_path)
    return store.complete(made, "c0ffee", {}, {}, {}).folder


def overrides(root: Path, base: Path, *more: str) -> list[str]:
    """20 problems with 6 samples each, in blocks of 4."""
    own = [
        "~task.source.min_operations",
        "~task.source.max_operations",
        "task.source._target_=tests.support.miniature.Sums",
    ]
    numbers = ["stage.problems=20", "stage.samples=6", "stage.problems_per_block=4", "stage.held_out_questions=0"]
    rules = ["stage.rules.min_edit_distance=0.01", "logger=none", "model=tiny", "trainer.threads=1"]
    return ["stage=sample", f"init_from={base}", f"paths.root={root}", *own, *numbers, *rules, *more]


def main(arguments: list[str]) -> int:
    """The command line, with the miniature for a model; returns the exit code."""
    sampling.build_parts = parts
    sys.argv = ["sample.py", *arguments]
    return cli.main(run_stage, CONFIGS)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
