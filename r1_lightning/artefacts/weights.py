"""Weights on disk: safetensors files, saved atomically and loaded all or nothing, one tensor at a time.

Two names may share one tensor (a tied embedding and head; the MTP modules' shared embedding). safetensors cannot store
shared memory, so only the first name of each tensor is written; the module that loads it shares in the same way and
needs no second copy. Loading compares every name and shape before it copies the first value, so a module is never
half loaded.

Weights whose rows are divided over processes (`functional.shards`) are gathered one tensor at a time when they are saved, and the
main process writes them: the same bytes as those of a whole model. All processes must save together. Loading takes from the file
the rows that a process holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from r1_lightning.artefacts.files import replacing
from r1_lightning.artefacts.tensor_file import Streamed, ordered, write_tensors
from r1_lightning.functional.shards import is_sharded, local, own_rows, whole
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.processes import processes_now

FORMAT: Mapping[str, str] = {"format": "pt"}  # in the header of every file that we write
LFS_POINTER = b"version https://git-lfs"


def _unique_state(module: nn.Module) -> dict[str, Tensor]:
    """Return the module's state by name; a shared tensor appears under its first name only."""
    state: dict[str, Tensor] = {}
    seen: set[object] = set()
    for name, tensor in module.state_dict(keep_vars=True).items():
        place: object = (
            tensor.data_ptr(),
            tensor.storage_offset(),
            tuple(tensor.shape),
            tensor.stride(),
            tensor.device,
        )
        if is_sharded(tensor):
            place = id(tensor)  # a rank without rows has no memory to compare
        if tensor.numel() and place in seen:
            continue
        seen.add(place)
        state[name] = tensor.detach()
    return state


def save_weights(module: nn.Module, path: Path) -> None:
    """Write every parameter and persistent buffer of `module` to `path`, atomically; all processes together if it is sharded.

    Raises `InvalidInput` naming the folder if it is full or read-only; a file at `path` is then unchanged.
    """
    save_tensors(_unique_state(module), path)


def save_by_main(module: nn.Module, path: Path, is_main: bool) -> None:
    """`save_weights` in the main process alone, or in all of them together if `module` is sharded; every process calls it."""
    if is_main or any(is_sharded(parameter) for parameter in module.parameters()):
        save_weights(module, path)


def save_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] = FORMAT) -> None:
    """Write `tensors` (on any device) to `path` atomically, with `metadata` in the header; errors as `save_weights`."""
    streamed = {name: _streamed(tensor) for name, tensor in tensors.items()}
    if any(is_sharded(tensor) for tensor in tensors.values()):
        _save_together(streamed, path, {**FORMAT, **metadata})
    else:
        _save(streamed, path, {**FORMAT, **metadata})


def _streamed(tensor: Tensor) -> Streamed:
    return Streamed(tensor.dtype, tuple(tensor.shape), lambda: whole(tensor))


def _save(streamed: Mapping[str, Streamed], path: Path, metadata: Mapping[str, str]) -> None:
    with replacing(path) as temporary:
        write_tensors(temporary, streamed, metadata)


def _save_together(streamed: Mapping[str, Streamed], path: Path, metadata: Mapping[str, str]) -> None:
    """Gather tensor by tensor in all processes; the main one writes. Where it cannot, it gathers on, so that nobody waits."""
    processes = processes_now()
    waiting = dict.fromkeys(ordered(streamed))
    fault: Exception | None = None

    def gathered(name: str) -> Tensor:
        del waiting[name]
        return streamed[name].make()

    entries = {name: entry._replace(make=partial(gathered, name)) for name, entry in streamed.items()}
    try:
        if processes.is_main:
            _save(entries, path, metadata)
    except Exception as error:
        fault = error
    for name in list(waiting):
        gathered(name)
    if fault is not None:
        processes.any(True)
        raise fault
    if processes.any(False):
        raise InvalidInput(f"weights={str(path)!r} is not allowed: the main process could not write them")


def load_weights(module: nn.Module, path: Path) -> None:
    """Copy the weights at `path` into `module`, in the module's own dtypes and on its devices.

    Raises `InvalidInput` and leaves the module unchanged if the file is missing, truncated or damaged, or if its names or
    shapes differ from the module's; the error names the first difference with both shapes.
    """
    load_tensors(_unique_state(module), path)


def load_tensors(wanted: Mapping[str, Tensor], path: Path) -> None:
    """Copy the tensors at `path` into `wanted`, matched by name; a shared tensor has one name. Errors as `load_weights`."""
    if not path.is_file():
        raise InvalidInput(f"weights={str(path)!r} is not allowed: there is no such file")
    with opened(path) as file:
        found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        shapes = {name: tuple(tensor.shape) for name, tensor in wanted.items()}
        for name in sorted(shapes.keys() | found.keys()):
            here, there = _shown(shapes.get(name)), _shown(found.get(name))
            if here != there:
                raise InvalidInput(
                    f"weights={str(path)!r} is not allowed: it was made by another architecture; "
                    f"{name} is {there} in the file and {here} in this model"
                )
        with torch.no_grad():
            for name, tensor in wanted.items():
                if is_sharded(tensor):
                    local(tensor).copy_(file.get_slice(name)[own_rows(tensor)])
                else:
                    tensor.copy_(file.get_tensor(name))


def stored_rows(path: Path, name: str) -> int | None:
    """Return the number of rows of the tensor `name` at `path`; None if there is no such file or tensor."""
    shape = stored_shapes(path).get(name)
    return None if shape is None else shape[0]


def stored_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors at `path` by name, read from the header; empty if there is no such file."""
    if not path.is_file():
        return {}
    with opened(path) as tensors:
        return {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118


def opened(path: Path) -> Any:
    """Open a safetensors file (a context manager) and read its header; `InvalidInput` if it is truncated or damaged."""
    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        with path.open("rb") as file:
            is_pointer = file.read(len(LFS_POINTER)) == LFS_POINTER
        why = f"the file is truncated or damaged ({error})"
        if is_pointer:
            why = "it is a pointer of Git LFS, and `git lfs pull` brings the file"
        raise InvalidInput(f"weights={str(path)!r} is not allowed: {why}") from error


def _shown(shape: tuple[int, ...] | None) -> str:
    return "absent" if shape is None else " x ".join(map(str, shape)) or "a scalar"
