"""`python scripts/train.py stage=grpo` at the smallest size that still does everything, in this process or in one of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from r1_lightning.run import cli
from r1_lightning.run.stages.kinds import run_stage

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs"

SMALL_MODEL = (
    "model.d_model=16",
    "model.n_layers=2",
    "model.n_heads=2",
    "model.q_lora_rank=8",
    "model.kv_lora_rank=8",
    "model.qk_nope_head_dim=4",
    "model.qk_rope_head_dim=4",
    "model.v_head_dim=4",
    "model.d_ff_dense=16",
    "model.d_ff_expert=8",
    "model.n_routed_experts=4",
    "task.tokenizer.vocab_size=300",
    "task.tokenizer.training_documents=50",
    "trainer.checkpoint_every_steps=2",
    "+callbacks.self_check.prompts=2",
    "callbacks.evaluation.text_rows=4",
    "logger=none",
)


def overrides(root: Path, pretrain_steps: int = 5, grpo_steps: int = 5, evaluation: bool = True) -> list[str]:
    """The command line of a whole run below `root`: pre-training, then GRPO with two minibatches per rollout."""
    own = [
        f"stage.max_steps={grpo_steps}",
        "stage.reference_refresh_steps=2",
        "rollout.prompts_per_rollout=2",
        "rollout.group_size=4",
        "rollout.minibatches_per_rollout=2",
        "rollout.max_new_tokens=12",
        "optim.lr=0.01",
        # So small a model answers nothing: a reward that differs within every group gives it something to learn.
        "+reward.rewards.hash={_target_: tests.support.miniature.HashReward, name: hash}",
        "+reward.weights.hash=1.0",
        f'stage.parent_overrides=["stage.max_steps={pretrain_steps}","data.rows_per_batch=4","optim.warmup_steps=1"]',
    ]
    measured = "{problems: 4, samples: 2, max_new_tokens: 12}"
    table = [f"stage.evaluation={measured}"] if evaluation else ["stage.evaluation=null"]
    return ["stage=grpo", *SMALL_MODEL, *own, *table, f"paths.root={root}"]


@dataclass(frozen=True)
class Finished:
    """Exit code and output of a command."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line of a refused command: exit code 2, a single `error:` line, no traceback."""
        lines = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert self.code == 2 and len(lines) == 1 and "Traceback" not in self.err, (self.code, self.err)
        return lines[0].removeprefix("error: ")


def train(arguments: list[str], capsys: pytest.CaptureFixture[str] | None = None) -> Finished:
    """Run the command in this process, by the real `cli.main` and the real `run_stage`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(cli.FULL_ERROR, raising=False)
        patch.setattr(sys, "argv", ["train.py", *arguments])
        try:
            code = cli.main(run_stage, CONFIGS)
        finally:
            torch.use_deterministic_algorithms(False)
    out, err = capsys.readouterr() if capsys else ("", "")
    return Finished(code, after_planning(out), err)


def after_planning(out: str) -> str:
    """What a command printed after its first line, which it prints before it knows anything else."""
    first, _, rest = out.partition("\n")
    return (
        rest
        if re.fullmatch(r"\S+: planning \(seed \d+\) on the CPU( in (FP32|BF16|FP8 [^:]*))? \(.*\)", first)
        else out
    )


def start(arguments: list[str]) -> subprocess.Popen[bytes]:
    """The real script in a process (and a group) of its own, its output thrown away."""
    quiet = subprocess.DEVNULL
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=quiet, stderr=quiet, env=environment(), start_new_session=True)


def environment() -> dict[str, str]:
    """This process's environment, with the checkout on the path even where it is not installed."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def folder(root: Path, stage: str) -> Path:
    """The only artefact folder of `stage` below `root`."""
    found = list(root.glob(f"{stage}-*"))
    assert len(found) == 1, found
    return found[0]


def weights(root: Path, stage: str = "grpo") -> bytes:
    return (folder(root, stage) / "weights.safetensors").read_bytes()
