"""The Lightning Trainer of a stage: its callbacks and loggers, and one fit that reaches its last step or raises the reason."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
from hydra.utils import instantiate
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Checkpoint, EarlyStopping
from omegaconf import DictConfig

from r1_lightning.artefacts.checkpoint_file import checkpoint_to_resume
from r1_lightning.artefacts.leftovers import CHECKPOINTS, remove_killed_writes
from r1_lightning.callbacks.checkpoint import ResumeCheckpoint
from r1_lightning.callbacks.interruption import Interruption
from r1_lightning.run.build.agreeing import by_main
from r1_lightning.run.build.device import stage_device
from r1_lightning.run.build.meeting import timeout_s
from r1_lightning.run.build.parts import trainer_settings
from r1_lightning.run.config.inject import inject
from r1_lightning.run.config.place import FSDP, place_of
from r1_lightning.run.stages.board import settings_of
from r1_lightning.run.stages.loggers import LogSettings, Rewind, make_loggers
from r1_lightning.stages.checkpoint_reading import MappedCheckpoints
from r1_lightning.stages.ddp import whole_models
from r1_lightning.stages.fsdp import sharded_models
from r1_lightning.stages.strategy import staying
from r1_lightning.types.errors import InvalidInput, Stopped, require
from r1_lightning.types.processes import processes_now
from r1_lightning.types.stopping import STOP, code_of


def make_trainer(config: DictConfig, parts: Mapping[str, Any], folder: Path, micro_batches: int) -> L.Trainer:
    """Make the Trainer of `config`. `InvalidInput` for a target that is not a callback, or one that Lightning refuses."""
    try:
        callbacks = _callbacks(config, parts)
        # In this order: Interruption sets `should_stop`, and ResumeCheckpoint, after all others, saves when it is set.
        is_async = bool(config.trainer.get("checkpoint_async"))
        saver = ResumeCheckpoint(folder / CHECKPOINTS, config.trainer.checkpoint_every_steps, is_async)
        compiles = bool(config.precision.get("compile"))
        callbacks += [Rewind(), LogSettings(settings_of(config))]
        callbacks += [Interruption(config.trainer.get("max_time"), saver, compiles), saver]
        return instantiate(
            trainer_settings(config),
            max_steps=config.stage.max_steps,
            max_epochs=1,  # the loader holds all batches of the stage, so an epoch is the whole training
            accumulate_grad_batches=micro_batches,
            logger=make_loggers(config, folder),
            callbacks=callbacks,
            default_root_dir=str(folder),
            # Lightning would add a checkpoint callback of its own beside ours; only a user's turns it on.
            enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in callbacks),
            enable_model_summary=False,
            log_every_n_steps=1,  # metrics.csv has a row per step
            **_strategy(config),
            _convert_="object",
        )
    except Exception as error:
        if (line := _refusal(error)) is not None:
            raise InvalidInput(line) from error
        raise


def _strategy(config: DictConfig) -> dict[str, Any]:
    """The Trainer's arguments for the process or the processes of this run."""
    device, place = stage_device(config), place_of(config.trainer)
    if place.count > 1:
        made = sharded_models if config.trainer.get("strategy") == FSDP else whole_models
        return made(device, place, timeout_s(config))
    # One process, also in a batch job: no second set of checkpoints and signals.
    return {"strategy": "auto", **staying(device), "plugins": [LightningEnvironment()]}


def _callbacks(config: DictConfig, parts: Mapping[str, Any]) -> list[L.Callback]:
    callbacks = []
    for name, node in (config.get("callbacks") or {}).items():
        if node is None:
            continue
        callback = inject(node, parts)
        allowed = "it must be a lightning.Callback"
        require(isinstance(callback, L.Callback), f"callbacks.{name}", node["_target_"], allowed)
        callbacks.append(callback)
    return callbacks


def fit(trainer: L.Trainer, module: L.LightningModule, datamodule: L.LightningDataModule, folder: Path) -> None:
    """Train from the last checkpoint in `folder`, or from the start, to the last step.

    Raises `Stopped` with the saved step if a signal or the time limit ended training; `InvalidInput` if a callback ended it, or
    asks for a metric that the stage does not have.
    """
    if trainer.is_global_zero:
        remove_killed_writes(folder)
    # Rank 0 looks: a damaged checkpoint costs steps, and all processes must go on from the same one.
    resume = by_main(processes_now(), lambda _: checkpoint_to_resume(folder / CHECKPOINTS, print))
    callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]  # its connector sets it
    saved = next(callback for callback in callbacks if isinstance(callback, ResumeCheckpoint))
    interruption = next(callback for callback in callbacks if isinstance(callback, Interruption))
    trainer.strategy.checkpoint_io = MappedCheckpoints(trainer.strategy.root_device)
    try:
        with STOP.between_polls():
            # weights_only: a checkpoint is a file from anywhere, and must not run code when it is loaded.
            trainer.fit(module, datamodule=datamodule, ckpt_path=resume, weights_only=True if resume else None)
    except Stopped as stopped:
        # Before the first step nobody has looked into the checkpoint yet.
        stopped.step = saved.saved_step or (0 if resume is None else None)
        raise
    except SystemExit as leaving:  # Lightning's own answer to a Ctrl-C that found Python's handler, as in a notebook
        if isinstance(leaving.__context__, KeyboardInterrupt):
            raise Stopped("interrupted", code_of(signal.SIGINT), saved.saved_step) from leaving
        raise
    except (MisconfigurationException, RuntimeError, ValueError) as error:
        if (line := _refusal(error) or _misfit(error, resume)) is not None:
            raise InvalidInput(line) from error
        raise
    if interruption.stopped is not None:
        interruption.stopped.step = saved.saved_step
        raise interruption.stopped
    # A user's callback (EarlyStopping) may end training: the artefact would not be what its fingerprint promises.
    early = (
        f"training ended after {trainer.global_step} optimizer steps (a callback stopped it); it is not complete; step "
        f"{saved.saved_step} is saved, and the same command without that callback goes on from there"
    )
    require(trainer.global_step == trainer.max_steps, "stage.max_steps", trainer.max_steps, early)
    _free(trainer)


def _free(trainer: L.Trainer) -> None:
    """Drop the optimizer's state and the gradients: the stage is complete without them, and its model is evaluated next."""
    for optimizer in trainer.optimizers:
        optimizer.state.clear()
        optimizer.zero_grad(set_to_none=True)


def _refusal(error: BaseException) -> str | None:
    """Return one line if Lightning refused a user's callback; None for any other error."""
    cause: BaseException | None = error
    while cause is not None:
        text = " ".join(str(cause).split())
        if isinstance(cause, MisconfigurationException):
            return f"callbacks is not allowed: Lightning refuses one of them ({text})"
        if isinstance(cause, RuntimeError) and text.startswith("Early stopping conditioned on metric"):
            return f"callbacks.{EarlyStopping.__name__} is not allowed: this stage has no such metric ({text})"
        cause = cause.__cause__
    return None


# How torch begins when a state has other tensors than the model, and other groups or parameters than the optimizer.
MISFITS = ("Error(s) in loading state_dict for ", "loaded state dict ")


def _misfit(error: BaseException, resume: Path | None) -> str | None:
    """Return one line if the state of the checkpoint `resume` was refused by model or optimizer; None for any other error."""
    text = " ".join(str(error).split())
    if resume is None or not text.startswith(MISFITS):
        return None
    return f"checkpoint={str(resume)!r} is not allowed: it is of another model ({text[:200]}); remove it to start this stage anew"
