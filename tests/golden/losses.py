"""Ten tiny steps of each stage, in full precision: `python -m tests.golden.losses > tests/golden/losses.txt` writes them anew.

A golden number says only that something changed, so regenerate it when a change of the mathematics is meant, and say in
the commit what changed. The runs are those of `tests/support/miniature.py`: a 2-layer backbone over 18 tokens.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import warnings
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from r1_lightning.stages.base import AdamWConfig
from tests.support.miniature import Miniature, Spy, rollout_config, trainer

STEPS = 10
# What is kept of each step: the loss that training descends, and the norm of its gradient, which sees every parameter.
COLUMNS = {
    "pretrain": ("loss", "train/mtp_loss", "train/grad_norm"),
    "grpo": ("loss", "policy/kl_ref", "train/grad_norm"),
    "sft": ("loss", "train/mtp_loss", "train/grad_norm"),
    "reward_model": ("loss", "train/margin", "train/grad_norm"),
    "dpo": ("loss", "dpo/margin", "train/grad_norm"),
    "distill": ("loss", "train/divergence", "train/grad_norm"),
}


def steps(stage: str) -> list[tuple[float, ...]]:
    """One row of `COLUMNS` per optimizer step."""
    optim = AdamWConfig(lr=1e-3, warmup_steps=2, final_lr_factor=0.5)
    miniature = Miniature(max_steps=STEPS, optim=optim, rollout=rollout_config(sampling_temperature=0.9, top_p=0.95))
    rows: list[tuple[float, ...]] = []
    losses: list[float] = []

    def end(fit: Any, *_: Any) -> None:
        values = {**fit.callback_metrics, "loss": losses[-1]}
        rows.append(tuple(float(values[name]) for name in COLUMNS[stage]))

    spies = [
        Spy("on_before_backward", lambda _, __, loss: losses.append(float(loss.detach()))),
        Spy("on_train_batch_end", end),
    ]
    # Data modules print what they found; losses.txt is written from this process's output.
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), redirect_stdout(sys.stderr):
        warnings.simplefilter("ignore")
        fit = trainer(STEPS, Path(folder), spies)
        if stage == "pretrain":
            fit.fit(miniature.pretrain(bias_update_speed=0.01), datamodule=miniature.text())
        elif stage == "sft":
            fit.fit(miniature.sft(bias_update_speed=0.01), datamodule=miniature.examples())
        elif stage == "reward_model":
            fit.fit(miniature.reward_model(), datamodule=miniature.preferences())
        elif stage == "dpo":
            fit.fit(miniature.dpo(), datamodule=miniature.preferences())
        elif stage == "distill":  # some of the steps on its own text
            fit.fit(miniature.distill(), datamodule=miniature.on_policy(0.3))
        else:
            fit.fit(miniature.grpo(reference_refresh_steps=4), datamodule=miniature.rollouts())
    return rows


def lines() -> list[str]:
    """The text of losses.txt, line by line: stage, step, and the columns as shortest decimals that give the same floats."""
    text = ["# Written by: python -m tests.golden.losses > tests/golden/losses.txt"]
    text += [f"# {stage}: step, {', '.join(names)}" for stage, names in COLUMNS.items()]
    for stage in COLUMNS:
        text += [f"{stage} {step} {' '.join(map(repr, row))}" for step, row in enumerate(steps(stage))]
    return text


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    logging.disable(logging.WARNING)
    print("\n".join(lines()))
