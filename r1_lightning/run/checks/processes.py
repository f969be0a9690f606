"""Rules of runs of several processes: how many there may be, and which stages divide their work among them.

A stage that does not divide its work would do all of it in every process: the same result for several times the price. Such a stage
is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from r1_lightning.run.config.place import FSDP, STRATEGIES, asks_for_several
from r1_lightning.types.errors import require, require_choice, require_int

# The stages, by the name of their class, whose steps, rollouts and evaluation are divided among processes: all of ours.
DIVIDED: tuple[str, ...] = (
    *("PretrainModule", "SFTModule", "GRPOModule", "DistillModule", "RewardModelModule", "DPOModule"),
    *("PPOModule", "RejectionSampling", "Comparison"),
)
WHOLE_COPIES = ("PPOModule",)  # stages that copy the whole policy into another network that trains


def check_processes(plain: Mapping[str, Any]) -> None:
    """Raise `InvalidInput` for a number of processes that the stage of the configuration cannot have."""
    trainer = plain.get("trainer") or {}
    require_choice("trainer.strategy", trainer.get("strategy", "auto"), ("auto", *STRATEGIES))
    require_int("trainer.num_nodes", trainer.get("num_nodes", 1), 1)
    devices = trainer.get("devices", 1)
    if isinstance(devices, list):  # which ones, by their numbers
        fits = bool(devices) and all(type(number) is int and number >= 0 for number in devices)
        fits = fits and len(set(devices)) == len(devices)
        require(fits, "trainer.devices", devices, "it must be the numbers of devices, each once")
    else:
        require_int("trainer.devices", devices, 1)
    if not asks_for_several(trainer):
        return
    dropout = ((plain.get("model") or {}).get("lora") or {}).get("dropout", 0.0)
    allowed = "it must be 0 with several processes: what it drops would depend on their number"
    require(dropout == 0, "model.lora.dropout", dropout, allowed)
    sampler = str(((plain.get("rollout") or {}).get("sampler") or {}).get("_target_", ""))
    allowed = "each of several processes would start an engine; with them the policy samples itself"
    require("vllm" not in sampler, "rollout.sampler", sampler, allowed)
    kind = str((plain.get("stage") or {}).get("_target_", "")).rpartition(".")[2]
    _check_sharding(plain, trainer)
    allowed = f"the work of {kind} is not divided among processes; one process does it all: trainer.devices=1 without trainer=ddp"
    require(kind in DIVIDED, "trainer.devices", devices, allowed)


def _check_sharding(plain: Mapping[str, Any], trainer: Mapping[str, Any]) -> None:
    """Raise `InvalidInput` for parts that have not been made to work with weights that are divided over processes."""
    if trainer.get("strategy") != FSDP:
        return
    kind = str((plain.get("stage") or {}).get("_target_", "")).rpartition(".")[2]
    allowed = f"{kind} copies the whole policy into its value model; trainer=ddp divides the work"
    require(kind not in WHOLE_COPIES, "trainer.strategy", FSDP, allowed)
    compiles = (plain.get("precision") or {}).get("compile", False)
    require(not compiles, "precision.compile", compiles, "trainer=fsdp runs uncompiled")
    backend = (plain.get("precision") or {}).get("backend")
    allowed = "FP8 has not been run with divided weights; trainer=ddp divides the work"
    require(backend is None, "precision.backend", backend, allowed)
