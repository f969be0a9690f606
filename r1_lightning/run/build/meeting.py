"""How the processes of a run meet: one torch.distributed group, and one comparison of what each is about to run.

    first    every process composes and plans for itself: the same command line gives the same plan
    then     they meet, at most `trainer.timeout_s` after the first one came
    then     each compares its configuration, code, packages and data with those of rank 0: a difference ends all, in one line

On the CPU the group is gloo's; beside NCCL for GPUs there is one of gloo, so that numbers and texts of the CPU need no GPU.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import distributed

import r1_lightning
from r1_lightning.artefacts import lineage
from r1_lightning.run.build.device import stage_device
from r1_lightning.run.config import place as places
from r1_lightning.run.config.place import OURS, Place
from r1_lightning.run.config.speaking import Lost
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.processes import ONE, Processes, ProcessGroup
from r1_lightning.types.stopping import STOP

PACKAGE = Path(r1_lightning.__file__).resolve().parent
# In the errors of gloo's operations; the second is that of a pair which another thread has closed already.
GLOO = ("gloo", "Application timeout caused pair closure")
# Where the processes may differ without computing anything else.
OWN = ("paths", "launcher", "logger", "callbacks")


@contextmanager
def met(place: Place, config: DictConfig) -> Iterator[Processes]:
    """Join the other processes of the run for the block; `ONE` at once if there are none.

    Raises `Lost` if not all of them come within `trainer.timeout_s` seconds, or if one goes or falls silent in the block.
    """
    if place.count == 1:
        yield ONE
        return
    device = stage_device(config)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    limit_s = timeout_s(config)
    try:
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
            **_where(place, timedelta(seconds=limit_s)),
            rank=place.rank,
            world_size=place.count,
            timeout=timedelta(seconds=limit_s),
        )
    except (distributed.DistError, RuntimeError, ValueError) as error:
        raise Lost(
            f"rank {place.rank} of {place.count} did not meet the others at {place.address}:{place.port} within "
            f"trainer.timeout_s={limit_s} s ({first_line(error)})"
        ) from error
    STOP.alone = False  # from here on a process that leaves by itself would leave the others waiting
    try:
        yield ProcessGroup.of_group()
    except Exception as error:
        if (line := lost(error)) is not None:
            raise Lost(line) from error
        raise
    finally:
        STOP.alone = True
        _leave()


def _where(place: Place, limit: timedelta) -> dict[str, Any]:
    """Return the arguments that lead all processes to one store: rank 0 of our own starter has its socket already."""
    if place.starter != OURS:
        return {"init_method": f"tcp://{place.address}:{place.port}"}
    at = (place.address, place.port, place.count, place.is_main)
    store = distributed.TCPStore(*at, timeout=limit, master_listen_fd=place.listening)  # type: ignore[attr-defined]
    return {"store": store}


def timeout_s(config: DictConfig) -> int:
    """Return the seconds after which a process that waits for another one gives up."""
    return places.timeout_s(config.get("trainer") or {})


def compare(processes: Processes, config: DictConfig, fingerprint: str) -> None:
    """Raise the same `InvalidInput` in every process if one of them would run something else than rank 0."""
    all_of_them = processes.collect(state_of(config, fingerprint))
    first = all_of_them[0]
    for rank, other in enumerate(all_of_them):
        for part, value in other.items():
            if value != first[part]:
                raise InvalidInput(
                    f"{part} of rank {rank} is not that of rank 0 ({value[:12]} where rank 0 has {first[part][:12]}): all "
                    "processes of a run must have the same configuration, code, packages and data"
                )


def state_of(config: DictConfig, fingerprint: str) -> dict[str, str]:
    """Return a hash of each part that must be equal in all processes; `fingerprint` covers the data's content."""
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, Mapping)
    counted = {key: value for key, value in plain.items() if key not in OWN}
    return {
        "configuration": _hash(repr(counted)),
        "code": _code(),
        "packages": _hash(repr({name: v for name, v in lineage.environment().items() if name != "platform"})),
        "data": fingerprint,
    }


def lost(error: BaseException) -> str | None:
    """Return one line if `error` says that another process is gone or silent; None for any other error."""
    text = str(error)
    if not (
        isinstance(error, distributed.DistError)
        or (isinstance(error, RuntimeError) and any(word in text for word in GLOO))
    ):
        return None
    if "imed out" in text or "imeout" in text:
        return f"another process did not answer within trainer.timeout_s; all end ({first_line(error)})"
    return f"another process of this run has ended; this one ends, too ({first_line(error)})"


def first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def _leave() -> None:
    """Leave the group, but wait for nobody: after an error the others may be gone, and NCCL would wait for them."""
    leaving = threading.Thread(target=distributed.destroy_process_group, daemon=True)
    leaving.start()
    leaving.join(timeout=10.0)


def _code() -> str:
    """The hash of all source files of the package."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(str(path.relative_to(PACKAGE)).encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
