"""The one place that decides on which device a stage works, and in which type it computes there.

`trainer=auto`, the default, takes a GPU where torch finds one, and the CPU elsewhere. Everything else follows: `build_parts` puts
the model there, the Trainer finds it there and leaves it there, and what is done with a model is done where its weights are. Other
models of a stage (a teacher, a judge, a reward model, the reference) are beside it, unless `trainer.role_devices` names another
device: {teacher: "cuda:1", reference: cpu}.

On a GPU the compute type is BF16 with TF32 for the products that stay in FP32, unless `precision` is typed: a mixture's products
in FP32 are a loop over experts on CUDA. The type is a part of the fingerprint, the device is not: BF16 is another computation.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Literal

import torch
from omegaconf import DictConfig, OmegaConf
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from r1_lightning.model.fp8_precision import backend_here, reason_against
from r1_lightning.run.config.place import FSDP, place_of
from r1_lightning.run.config.stage_config import StageConfig
from r1_lightning.types.errors import require

AUTO, CPU, GPU = "auto", "cpu", "gpu"
EMULATED = "emulate"  # the backend of FP8 that works on any device
GPU_NAMES = (GPU, "cuda")
REFERENCE = "reference"  # the role of GRPO's reference in `trainer.role_devices`; others are inputs of the stage
UNTYPED_PRECISION = "fp32"  # the option of configs/precision that configs/train.yaml chooses


def settled(stage: StageConfig) -> StageConfig:
    """Return `stage` with its device decided: `trainer.accelerator` is no longer "auto", and `precision` fits it."""
    trainer = stage.config.get("trainer")
    if not trainer:
        return stage
    accelerator = settled_accelerator(trainer.get("accelerator"))
    if _asks_elsewhere(stage) and trainer.get("accelerator") == AUTO:
        accelerator = GPU
    on_gpu = accelerator in GPU_NAMES
    compute = "bf16" if on_gpu and _chooses_type(stage) else None
    backend = (backend_here() if on_gpu else EMULATED) if _backend(stage.config) == AUTO else None
    if accelerator == trainer.get("accelerator") and compute is None and backend is None:
        return stage
    config = stage.config.copy()
    config.trainer.accelerator = accelerator
    if compute is not None:
        config.precision.compute = compute
    if backend is not None:
        config.precision.backend = backend
    return replace(stage, config=config)


def _asks_elsewhere(stage: StageConfig) -> bool:
    """True for a dry run that asks about a machine which is not here; that is one with GPUs."""
    return stage.config.get("dry_run_memory_gib") is not None


def settle_here(config: DictConfig) -> None:
    """Let a stored `config`, of a stage made on any machine, work on what this machine has, in its own compute type.

    FP8 by a backend that cannot be had here is emulated, and a line says so: bytes and scales are the same.
    """
    if config.get("trainer"):
        one = {"accelerator": settled_accelerator(AUTO), "devices": 1, "num_nodes": 1, "strategy": "auto"}
        OmegaConf.update(config, "trainer", one, force_add=True)
        OmegaConf.update(config, "trainer.role_devices", None, force_add=True)
    backend = _backend(config)
    if backend not in (None, EMULATED) and (reason := reason_against(str(backend))) is not None:
        print(f"precision.backend={backend} is emulated here: {reason.partition(';')[0]}", file=sys.stderr)
        config.precision.backend = EMULATED


def settled_accelerator(accelerator: Any) -> Any:
    """Return "gpu" or "cpu" for "auto", by what torch finds; any other choice as it is."""
    if accelerator != AUTO:
        return accelerator
    return GPU if torch.cuda.is_available() else CPU


def here() -> torch.device:
    """Return the device of work that has no configuration: this machine's GPU, or the CPU."""
    return _cuda() if settled_accelerator(AUTO) == GPU else torch.device(CPU)


def default_compute(device: torch.device) -> Literal["fp32", "bf16"]:
    """The compute type where nobody names one: "bf16" on a GPU that has it, else "fp32"."""
    has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if has_bf16 else "fp32"


def _chooses_type(stage: StageConfig) -> bool:
    """True if the compute type is ours to choose: the GPU has BF16, and neither a typed word nor an option names a type."""
    precision = stage.config.get("precision") or {}
    typed = [word.lstrip("+") for word in (*stage.overrides, *stage.cli_overrides)]
    is_named = any(re.match(r"precision(\.compute)?=", word) for word in typed)
    is_default = stage.choices.get("precision") == UNTYPED_PRECISION and precision.get("compute") == "fp32"
    return is_default and not is_named and (not torch.cuda.is_available() or default_compute(_cuda()) == "bf16")


def decision(asked: StageConfig, stage: StageConfig) -> str:
    """Return what was decided for `asked`, and why, in a few words: "on the CPU in FP32 (trainer=auto: torch finds no GPU)"."""
    config = stage.config
    device = stage_device(config)
    precision = config.get("precision") or {}
    compute = str(precision.get("compute", "")).upper()
    backend = _backend(config)
    numbers = f"FP8 ({backend}) and {compute}" if backend else compute
    where = {"cpu": "the CPU", "cuda": _name(device)}.get(device.type, device.type)
    was_auto = (asked.config.get("trainer") or {}).get("accelerator") == AUTO
    finds = "a GPU" if device.type == "cuda" else "no GPU"
    why = (
        f"trainer=auto: torch finds {finds}"
        if was_auto
        else f"trainer.accelerator={(config.get('trainer') or {}).get('accelerator')}"
    )
    if was_auto and _asks_elsewhere(asked):
        why = "trainer=auto: dry_run_memory_gib asks about a GPU"
    if compute == "BF16" and (asked.config.get("precision") or {}).get("compute") != "bf16":
        why += "; BF16, with TF32 elsewhere, is its default: precision=fp32 for FP32"
    if _backend(asked.config) == AUTO:
        found = reason_against("te") if device.type == "cuda" or not torch.cuda.is_available() else "not on the CPU"
        why += f"; precision.backend=auto: {(found or 'all are here, and this is the first').partition(';')[0]}"
    return f"on {where}{f' in {numbers}' if numbers else ''} ({why})"


def _backend(config: DictConfig) -> str | None:
    """Return what multiplies in FP8; None where nothing does."""
    backend: str | None = (config.get("precision") or {}).get("backend")
    return backend


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if torch.cuda.is_available() else str(device)


def stage_device(config: DictConfig) -> torch.device:
    """Return the device on which the stage of `config` works."""
    trainer = config.get("trainer") or {}
    accelerator = settled_accelerator(trainer.get("accelerator"))
    if accelerator in GPU_NAMES:
        devices, local = trainer.get("devices", 1), place_of(trainer).local_rank
        if not isinstance(devices, int):
            return _cuda(int(devices[local]))  # a list names them, by their numbers
        # A task of `srun --gpus-per-task=1` sees its own GPU alone, whatever its number among the tasks.
        return _cuda(local % max(torch.cuda.device_count(), 1))
    return torch.device("mps" if accelerator == "mps" else "cpu")


def mesh_of(config: DictConfig) -> DeviceMesh | None:
    """Return the processes over which the weights of `config`'s models are divided (`trainer=fsdp`); None if each holds all.

    They have met, and all of them ask.
    """
    trainer = config.get("trainer") or {}
    place = place_of(trainer)
    if place.count == 1 or trainer.get("strategy") != FSDP:
        return None
    return init_device_mesh(stage_device(config).type, (place.count,))


def role_device(config: DictConfig, role: str) -> torch.device:
    """Return the device of the model `role` of a stage: that of `trainer.role_devices`, else the stage's own."""
    return told_device(config, role) or stage_device(config)


def told_device(config: DictConfig, role: str) -> torch.device | None:
    """Return the device that `trainer.role_devices` names for `role`; None if it names none."""
    told = ((config.get("trainer") or {}).get("role_devices") or {}).get(role)
    return None if told is None else torch.device(told)


def check_roles(config: DictConfig, roles: Iterable[str]) -> None:
    """Raise `InvalidInput` if `trainer.role_devices` names a role that no stage of the graph has; `roles` are the inputs' names."""
    known = sorted({REFERENCE, *roles} - {"base", "data"})
    for role in (config.get("trainer") or {}).get("role_devices") or {}:
        require(role in known, "trainer.role_devices", role, f"it must be one of {', '.join(known)}")


def check_accelerator(config: DictConfig) -> None:
    """Raise `InvalidInput` if a GPU is asked for and there is none, before anything is made or an old result is shown.

    The same for an FP8 backend that cannot be had here.
    """
    backend = _backend(config)
    reason = None if backend is None else reason_against(backend)
    require(reason is None, "precision.backend", backend, str(reason))
    trainer = OmegaConf.to_container(config.get("trainer") or OmegaConf.create({}), resolve=True)
    assert isinstance(trainer, dict)
    here = torch.cuda.is_available()
    accelerator, allowed = trainer.get("accelerator"), "it is for a GPU; precision=fp8_emulated works on the CPU, too"
    is_fit = backend in (None, EMULATED) or settled_accelerator(accelerator) in GPU_NAMES
    require(is_fit, "precision.backend", backend, allowed)
    allowed = "torch finds no GPU here; trainer=cpu runs without one"
    require(here or accelerator not in GPU_NAMES, "trainer.accelerator", accelerator, allowed)
    for role, device in (trainer.get("role_devices") or {}).items():
        require(
            here or device == CPU, f"trainer.role_devices.{role}", device, "torch finds no GPU here; it must be cpu"
        )


def _cuda(number: int = 0) -> torch.device:
    return torch.device("cuda", number)
