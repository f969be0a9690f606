"""Every stage that trains, ended after each of its steps and resumed in a new Trainer: the bits of the uninterrupted run.

So a checkpoint is complete: what it leaves out would differ after the next step. Rollouts in use, micro-batches, students' own
completions and steps that are skipped are among the moments.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from r1_lightning.artefacts.checkpoint_file import checkpoint_to_resume
from r1_lightning.artefacts.leftovers import LAST
from r1_lightning.callbacks.checkpoint import ResumeCheckpoint
from r1_lightning.stages.muon import MuonConfig
from r1_lightning.types.errors import InvalidInput
from tests.support.miniature import Miniature, Spy, fingerprint, ppo_rollouts, rollout_config, trainer

STEPS = 5
Parts = tuple[L.LightningModule, L.LightningDataModule]


def grpo(miniature: Miniature, **settings: Any) -> Parts:
    return miniature.grpo(reference_refresh_steps=2, **settings), miniature.rollouts()


def rollouts_of(**changes: Any) -> Callable[[], Miniature]:
    return lambda: Miniature(max_steps=STEPS, rollout=rollout_config(**changes))


def ppo(miniature: Miniature) -> Parts:
    return miniature.ppo(reference_refresh_steps=2), miniature.rollouts()


def ppo_of(**changes: Any) -> Callable[[], Miniature]:
    return lambda: Miniature(max_steps=STEPS, rollout=ppo_rollouts(**changes))


KINDS: dict[str, tuple[Callable[[], Miniature], Callable[[Miniature], Parts]]] = {
    "pretrain, experts' biases moving": (rollouts_of(), lambda m: (m.pretrain(bias_update_speed=0.05), m.text())),
    "sft": (rollouts_of(), lambda m: (m.sft(bias_update_speed=0.0), m.examples())),
    "distill": (rollouts_of(), lambda m: (m.distill(), m.traces(micro_batches=2))),
    "distill, on own completions": (rollouts_of(), lambda m: (m.distill(), m.on_policy(0.5, micro_batches=2))),
    "reward model": (rollouts_of(), lambda m: (m.reward_model(), m.preferences())),
    "dpo": (rollouts_of(), lambda m: (m.dpo(bias_update_speed=0.01), m.preferences())),
    "grpo, three minibatches": (rollouts_of(minibatches_per_rollout=3), grpo),
    "grpo, micro-batches": (rollouts_of(minibatches_per_rollout=3, micro_batches=2), grpo),
    "grpo, dynamic sampling": (rollouts_of(dynamic_sampling_attempts=2), grpo),
    "grpo, moving router": (rollouts_of(), lambda m: grpo(m, router="update", bias_update_speed=0.01)),
    "ppo, micro-batches": (ppo_of(minibatches_per_rollout=3, micro_batches=2), ppo),
    "muon": (
        lambda: Miniature(max_steps=STEPS, optim=MuonConfig(lr=0.01, warmup_steps=2)),
        lambda m: (m.pretrain(), m.text()),
    ),
}


def run(kind: str, folder: Path, stop: int = STEPS) -> int:
    """Train to step `stop` from the checkpoint in `folder`, if there is one; returns the fingerprint of the weights."""
    make, parts = KINDS[kind]
    miniature = make()
    module, data = parts(miniature)
    spy = Spy("on_train_batch_end", lambda fit, *_: setattr(fit, "should_stop", fit.global_step >= stop))
    per_step = getattr(data, "micro_batches", 1)
    fit = trainer(STEPS, folder, [spy, ResumeCheckpoint(folder, 1)], accumulate_grad_batches=per_step)
    path = checkpoint_to_resume(folder)
    fit.fit(module, datamodule=data, ckpt_path=path, weights_only=True if path else None)
    assert fit.global_step == stop
    return fingerprint(miniature.model)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_ended_after_every_step_and_resumed_the_bits_are_the_same(kind: str, tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    found = [run(kind, tmp_path / "parts", stop) for stop in range(1, STEPS + 1)]
    assert len(set(found)) == STEPS, "each step has moved the weights"
    (tmp_path / "whole").mkdir()
    assert found[-1] == run(kind, tmp_path / "whole")


def test_skipped_steps_in_a_row_are_counted_on(tmp_path: Path) -> None:
    """Ten may be skipped, the eleventh ends the run: six of them before the end of a process, and five after it."""

    def fit(stop: int) -> None:
        miniature = Miniature(max_steps=20)
        module = miniature.pretrain(on_nonfinite="skip")
        spies = [
            Spy("on_after_backward", lambda _, stage: stage.backbone.norm.weight.grad.fill_(torch.nan)),
            Spy("on_train_batch_end", lambda fit, *_: setattr(fit, "should_stop", fit.global_step >= stop)),
        ]
        path = checkpoint_to_resume(tmp_path)
        trainer(20, tmp_path, [*spies, ResumeCheckpoint(tmp_path, 1)]).fit(
            module, datamodule=miniature.text(), ckpt_path=path, weights_only=True if path else None
        )

    fit(6)
    assert torch.load(tmp_path / LAST, weights_only=True)["skipped_in_a_row"] == 6
    with pytest.raises(InvalidInput, match="at step 10: training has diverged"):
        fit(20)
