"""Stages whose weights are divided over two processes: ten steps as one process takes them, what is sharded, and resuming."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh

from r1_lightning.artefacts.checkpoint_file import checkpoint_to_resume
from r1_lightning.artefacts.leftovers import CHECKPOINTS
from r1_lightning.artefacts.weights import save_weights
from r1_lightning.callbacks.checkpoint import ResumeCheckpoint
from r1_lightning.functional.shards import is_sharded, local, whole
from r1_lightning.rollout.teacher import Teacher
from r1_lightning.stages.base import AdamWConfig
from r1_lightning.stages.fsdp import shard_stage
from r1_lightning.stages.muon import MuonConfig
from r1_lightning.types.processes import Processes
from r1_lightning.types.tensors import DistillBatch
from tests.support.miniature import Miniature, Spy, backbone, sharded, trainer
from tests.support.processes import in_processes

LIMIT_S = 240.0  # a hang, not a slow machine
STEPS = 10
pytestmark = pytest.mark.slow


def stage_and_data(name: str, processes: Processes, optim: AdamWConfig, max_steps: int = STEPS) -> tuple[Any, Any]:
    mini = Miniature(model=backbone(balance_loss_alpha=0.1), max_steps=max_steps, optim=optim, processes=processes)
    if name == "pretrain":
        return mini.pretrain(bias_update_speed=0.01), mini.text()
    if name == "distill":
        return mini.distill(bias_update_speed=0.01), mini.traces(micro_batches=2)
    if name == "reward_model":
        return mini.reward_model(), mini.preferences()
    if name == "dpo":
        return mini.dpo(), mini.preferences()
    return mini.grpo(router="update", bias_update_speed=0.01, reference_refresh_steps=4), mini.rollouts()


def run(
    processes: Processes,
    name: str,
    optim: AdamWConfig,
    folder: Path,
    stop_after: int | None = None,
    weights: Path | None = None,
) -> dict[str, Tensor]:
    """Train to the end, or from the checkpoint that is there, or stop after some steps; returns weights and biases."""
    module, data = stage_and_data(name, processes, optim)
    saver = ResumeCheckpoint(folder / CHECKPOINTS, 100)

    def stop(fit: L.Trainer, *_: Any) -> None:
        fit.should_stop = fit.global_step == stop_after

    settings = sharded(processes) if processes.count > 1 else {}
    settings["accumulate_grad_batches"] = getattr(data, "micro_batches", 1)
    fit = trainer(STEPS, folder, [Spy("on_train_batch_end", stop), saver], processes, **settings)
    fit.fit(module, data, ckpt_path=checkpoint_to_resume(folder / CHECKPOINTS), weights_only=True)
    assert fit.global_step == (stop_after or STEPS)
    assert processes.count == 1 or all(is_sharded(parameter) for parameter in module.backbone.parameters())
    if weights is not None:
        save_weights(module.backbone, weights)
    return {key: whole(value).clone() for key, value in module.backbone.state_dict().items()}


ADAMW, MUON = AdamWConfig(lr=1e-3), MuonConfig(lr=1e-3)


@pytest.mark.parametrize(
    "name, optim",
    [
        ("pretrain", ADAMW),
        ("pretrain", MUON),
        ("grpo", ADAMW),
        ("distill", ADAMW),
        ("reward_model", ADAMW),
        ("dpo", ADAMW),
    ],
)
def test_ten_steps_are_those_of_one_process(name: str, optim: AdamWConfig, tmp_path: Path) -> None:
    (expected,) = in_processes(1, run, name, optim, tmp_path / "1")
    found = in_processes(2, run, name, optim, tmp_path / "2", None, tmp_path / "saved", limit_s=LIMIT_S)
    for state in found:
        for key, value in expected.items():
            assert float((state[key] - value).abs().max()) < 1e-5, key
            assert not key.endswith("expert_bias") or torch.equal(state[key], value)
        assert all(torch.equal(state[key], found[0][key]) for key in state)


@pytest.mark.parametrize("first, second, optim", [(2, 2, MUON), (2, 1, ADAMW), (1, 3, ADAMW), (3, 2, ADAMW)])
def test_another_number_of_processes_goes_on(first: int, second: int, optim: AdamWConfig, tmp_path: Path) -> None:
    """GRPO is stopped within a rollout, after a refresh of the reference (step 4), with moments and biases that have moved."""
    (expected,) = in_processes(1, run, "grpo", optim, tmp_path / "1")
    in_processes(first, run, "grpo", optim, tmp_path / "run", 5, limit_s=LIMIT_S)
    found = in_processes(second, run, "grpo", optim, tmp_path / "run", limit_s=LIMIT_S)
    for state in found:
        for key, value in expected.items():
            assert float((state[key] - value).abs().max()) < 1e-5, key


@pytest.mark.parametrize("name", ["distill", "reward_model", "dpo"])
def test_other_stages_go_on_in_one_process_too(name: str, tmp_path: Path) -> None:
    """Two processes to step 5, one to the end; a checkpoint holds what trains, and neither teacher nor reference."""
    (expected,) = in_processes(1, run, name, ADAMW, tmp_path / "1")
    in_processes(2, run, name, ADAMW, tmp_path / "run", 5, limit_s=LIMIT_S)
    saved = torch.load(tmp_path / "run" / CHECKPOINTS / "last.ckpt", weights_only=True)["shards"]["tensors"]
    assert {key.split("/")[1] for key in saved if key.startswith("state_dict/")} == {
        f"backbone.{key}" for key in expected if not key.endswith("expert_bias")
    }
    (found,) = in_processes(1, run, name, ADAMW, tmp_path / "run")
    for key, value in expected.items():
        assert float((found[key] - value).abs().max()) < 1e-5, key


def asked(processes: Processes, folder: Path) -> list[tuple[bool, bool]]:
    """Fill a cache of three batches and train on it; returns of each batch asked for if teacher and student were in shares."""
    mini, found = Miniature(max_steps=3, processes=processes), []

    class Watched(Teacher):
        def hidden(self, batch: DistillBatch) -> Tensor:
            models = (self.model, mini.model)
            found.append(tuple(all(is_sharded(p) for p in model.parameters()) for model in models))
            return super().hidden(batch)

    made = mini.teacher()
    teacher = Watched(made.make, made.fingerprint, made.vocabulary, made.compute)
    settings = sharded(processes) if processes.count > 1 else {}
    trainer(3, folder, [], processes, **settings).fit(mini.distill(teacher=teacher), mini.cached(folder, teacher))
    assert not teacher.is_loaded
    return found


def test_the_teacher_fills_a_cache_in_shares(tmp_path: Path) -> None:
    """Two batches of one process and one of the other, before the student is divided: the shards of one process, to the byte."""
    assert in_processes(1, asked, tmp_path / "1") == [[(False, False)] * 3]
    assert in_processes(2, asked, tmp_path / "2") == [[(True, False)] * 2, [(True, False)]]
    files = [{path.name: path.read_bytes() for path in (tmp_path / n).rglob("*.safetensors")} for n in ("1", "2")]
    assert files[0] == files[1] and len(files[0]) == 3


def placed(processes: Processes, folder: Path) -> list[bool]:
    """Of GRPO the policy and the reference, of distillation the student and the teacher, which is made later."""
    mini = Miniature(processes=processes)
    grpo, distill = mini.grpo(), Miniature(processes=processes).distill()
    mesh = init_device_mesh("cpu", (processes.count,))
    for stage in (grpo, distill):
        shard_stage(stage, mesh)
    models = [grpo.backbone, grpo.reference.backbone, distill.backbone, distill.teacher.model]
    elsewhere = Teacher(backbone, "teacher-1", 17, "fp32")
    elsewhere.has_own_device = True  # as of trainer.role_devices.teacher; it may be the device of one of the processes
    shard_stage(Miniature(processes=processes).distill(teacher=elsewhere), mesh)
    assert not any(is_sharded(p) for p in elsewhere.model.parameters())
    held = [sum(local(p).numel() for p in model.parameters()) for model in models]
    whole_sizes = [sum(p.numel() for p in model.parameters()) for model in models]
    shares = [processes.sum(torch.tensor(size)).item() for size in held]
    assert shares == whole_sizes  # each weight is held once
    return [all(is_sharded(p) for p in model.parameters()) for model in models]


def test_every_model_of_a_stage_is_divided(tmp_path: Path) -> None:
    assert in_processes(2, placed, tmp_path, limit_s=LIMIT_S) == [[True] * 4] * 2
