"""Sharded tensors on disk: each process writes the rows that it holds, and any number of processes reads the rows it wants.

    FOLDER/rank-0-of-2.safetensors    the rows of rank 0; the header says which, by name: {"embedding.weight": [0, 31], ...}
    FOLDER/rank-1-of-2.safetensors

The folder is described by a list of its files with sizes and hashes, which the caller keeps (a checkpoint cites it). A reader
compares them first, so a missing, truncated or changed file ends in one line. torch.distributed.checkpoint would keep its plan in
a pickle, which a checkpoint, a file from anywhere, must not be; and these files can be read by any safetensors library.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch import Tensor

from r1_lightning.artefacts.files import output_folder, replacing, sha256_of
from r1_lightning.artefacts.leftovers import SHARDS
from r1_lightning.artefacts.tensor_file import TYPES, Streamed, write_tensors
from r1_lightning.artefacts.weights import opened
from r1_lightning.functional.shards import local, own_rows
from r1_lightning.types.errors import InvalidInput, require
from r1_lightning.types.processes import Processes

ROWS = "rows"  # in a header: JSON of the first row and the end of each tensor's piece
ASIDE = "aside"  # key in a checkpoint that is being made: who put it there writes the `Aside` that a stage leaves there
KEPT = 2  # folders before the new one: last.ckpt and previous.ckpt cite them while it is written


class ShardFile(TypedDict):
    """The description of one process's file."""

    file: str
    bytes: int
    sha256: str


class Citation(TypedDict):
    """A checkpoint's citation of its shards: folder, files, and type and shape of each whole tensor."""

    folder: str
    files: list[ShardFile]
    tensors: dict[str, tuple[str, list[int]]]


@dataclass(frozen=True)
class Aside:
    """What this process holds of a checkpoint's sharded tensors, to be written to a folder of its step in `folder`.

    `values` are the rows that it holds, `rows` the first and the end of them, `tensors` type and shape of each whole tensor.
    """

    folder: Path
    step: int
    values: dict[str, Tensor]
    rows: dict[str, list[int]]
    tensors: dict[str, tuple[str, list[int]]]

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], folder: Path, step: int) -> Aside:
        """Return what is to be written of sharded `tensors`; nothing is copied."""
        held = {name: tensor for name, tensor in tensors.items() if local(tensor).numel()}
        return cls(
            folder,
            step,
            {name: local(tensor) for name, tensor in held.items()},
            {name: [own_rows(tensor).start, own_rows(tensor).stop] for name, tensor in held.items()},
            {name: (TYPES[tensor.dtype], list(tensor.shape)) for name, tensor in tensors.items()},
        )

    def copied(self, values: dict[str, Tensor]) -> Aside:
        """Return one that writes `values`, copies of its own, so that training can go on before."""
        return replace(self, values=values)

    def written(self, processes: Processes) -> Citation:
        """Write it, all `processes` together, and return the citation; older folders go first. Errors as `save_shards`."""
        if processes.is_main:
            remove_older(self.folder, SHARDS, self.step, KEPT)
        place = f"{SHARDS}{self.step}"
        files = _save(self.values, self.rows, self.folder / place, processes)
        return Citation(folder=place, files=files, tensors=self.tensors)


def save_shards(tensors: Mapping[str, Tensor], folder: Path, processes: Processes) -> list[ShardFile]:
    """Write this process's rows of sharded `tensors`; all processes together. Returns the description of all files.

    Raises `InvalidInput` in every process if one of them cannot write.
    """
    aside = Aside.of(tensors, folder, 0)
    return _save(aside.values, aside.rows, folder, processes)


def _save(
    values: Mapping[str, Tensor], rows: Mapping[str, list[int]], folder: Path, processes: Processes
) -> list[ShardFile]:
    path = folder / f"rank-{processes.rank}-of-{processes.count}.safetensors"
    fault: Exception | None = None
    description: list[ShardFile] = []
    try:
        with output_folder(folder):
            folder.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            streamed = {name: Streamed.of(tensor) for name, tensor in values.items()}
            write_tensors(temporary, streamed, {ROWS: json.dumps(rows)})
        description = [{"file": path.name, "bytes": path.stat().st_size, "sha256": sha256_of(path)}]
    except Exception as error:
        fault = error
    found = processes.gather(description)
    if fault is not None:
        raise fault
    allowed = "another process could not write its part"
    require(len(found) == processes.count, "checkpoint", str(folder), allowed)
    return found


def check_shards(folder: Path, files: Sequence[ShardFile], processes: Processes) -> None:
    """Raise `InvalidInput`, in every process, if a file is missing or is not as it was written; each process hashes its share."""
    found = [line for line in (_fault(folder, description) for description in processes.share(files)) if line]
    faults = processes.gather(found)
    if faults:
        raise InvalidInput(faults[0])


def _fault(folder: Path, description: Mapping[str, Any]) -> str:
    name, size = str(description["file"]), description["bytes"]
    path = folder / Path(name).name
    if not path.is_file():
        return f"checkpoint={str(path)!r} is not allowed: the file is missing"
    if path.stat().st_size != size or sha256_of(path) != description["sha256"]:
        return f"checkpoint={str(path)!r} is not allowed: the file is truncated or damaged"
    return ""


def load_shards(wanted: Mapping[str, Tensor], folder: Path, files: Sequence[ShardFile]) -> None:
    """Fill the rows that this process holds of each tensor of `wanted` (whole or sharded) from the files in `folder`.

    Raises `InvalidInput` if a tensor's rows are not all there, or have another shape.
    """
    missing = {name: _rows_of(tensor) for name, tensor in wanted.items()}
    for description in files:
        with opened(folder / Path(str(description["file"])).name) as file:
            rows = json.loads((file.metadata() or {}).get(ROWS, "{}"))
            for name in rows.keys() & wanted.keys():
                missing[name] -= _copy(name, wanted[name], file.get_slice(name), *rows[name])
    for name, count in missing.items():
        require(count == 0, f"checkpoint {folder}", name, f"{count} of its rows are in none of the files")


def _rows_of(tensor: Tensor) -> int:
    own = own_rows(tensor)
    return own.stop - own.start if local(tensor).numel() else 0


@torch.no_grad()
def _copy(name: str, tensor: Tensor, stored: Any, start: int, stop: int) -> int:
    """Copy the rows that both sides hold; returns their number."""
    own, target = own_rows(tensor), local(tensor)
    low, high = max(own.start, start), min(own.stop, stop)
    if low >= high or not target.numel():
        return 0
    shape = tuple(stored.get_shape())
    fits = shape == (stop - start, *tensor.shape[1:])
    require(fits, f"checkpoint tensor {name}", shape, f"it must be {(stop - start, *tensor.shape[1:])}")
    target[low - own.start : high - own.start].copy_(stored[low - start : high - start])
    return high - low


def remove_older(folder: Path, prefix: str, step: int, kept: int) -> None:
    """Remove the folders `prefix`NUMBER in `folder`, but for the newest `kept` of those before `step`, and that of `step`."""
    numbered = {int(path.name.removeprefix(prefix)): path for path in folder.glob(f"{prefix}[0-9]*") if path.is_dir()}
    before = sorted(number for number in numbered if number < step)
    for number, path in numbered.items():
        if number != step and number not in before[-kept:]:
            shutil.rmtree(path, ignore_errors=True)
