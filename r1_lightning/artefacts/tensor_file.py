"""Writes a safetensors file one tensor at a time, so that memory never holds a second copy of a model.

    8 bytes: length of the header | header: JSON with type, shape and place of each tensor | the tensors' bytes

Types and shapes are known before the first value is, so the header comes first and each tensor is made, written and dropped in
turn. The library's `save_file` takes all tensors at once, on the CPU: a model on a GPU, or one that is cast for export, would be
built in host memory first. The bytes are those of `save_file`, in its order: wide types first, then names.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from r1_lightning.types.errors import require

# Names of types in the format, in the order in which the library writes them.
TYPES: Mapping[torch.dtype, str] = {
    torch.int64: "I64",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int16: "I16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
ORDER = list(TYPES)
PIECE_BYTES = 2**26  # of a tensor on another device: the most that is copied to the host at a time
ALIGNMENT = 8  # bytes: the tensors begin at a multiple of it


class Streamed(NamedTuple):
    """A tensor to be written: its type and shape, and a function that returns it when its turn comes."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    make: Callable[[], Tensor]

    @classmethod
    def of(cls, tensor: Tensor) -> Streamed:
        """Return an entry for a tensor that is there already, on any device."""
        return cls(tensor.dtype, tuple(tensor.shape), lambda: tensor)

    @property
    def bytes(self) -> int:
        return self.dtype.itemsize * torch.Size(self.shape).numel()


def write_tensors(path: Path, tensors: Mapping[str, Streamed], metadata: Mapping[str, str]) -> None:
    """Write `tensors` and `metadata` to `path`.

    Raises InvalidInput naming a tensor whose type is not in `TYPES`, the system's errors, and ValueError if a tensor is not as it
    was announced.
    """
    for name, entry in tensors.items():
        require(
            entry.dtype in TYPES,
            f"type of tensor {name}",
            str(entry.dtype),
            f"it must be one of {', '.join(map(str, TYPES))}",
        )
    names = ordered(tensors)
    with path.open("wb") as file:
        file.write(_header(names, tensors, metadata))
        for name in names:
            entry = tensors[name]
            tensor = entry.make().detach()
            if (tensor.dtype, tuple(tensor.shape)) != (entry.dtype, entry.shape):
                raise ValueError(f"{name} is {tensor.dtype} {tuple(tensor.shape)}, announced as {entry[:2]}")
            for piece in _pieces(tensor):
                file.write(piece)


def ordered(tensors: Mapping[str, Streamed]) -> list[str]:
    """Return the names in the order in which they are written."""
    return sorted(tensors, key=lambda name: (ORDER.index(tensors[name].dtype), name))


def _header(names: list[str], tensors: Mapping[str, Streamed], metadata: Mapping[str, str]) -> bytes:
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    end = 0
    for name in names:
        begin, end = end, end + tensors[name].bytes
        dtype, shape, _ = tensors[name]
        header[name] = {"dtype": TYPES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _pieces(tensor: Tensor) -> Iterator[Any]:
    """Yield the bytes of `tensor` in order; of one on another device, `PIECE_BYTES` at a time."""
    if tensor.numel() == 0:
        return
    flat = tensor.contiguous().view(-1).view(torch.uint8)
    for piece in [flat] if flat.device.type == "cpu" else flat.split(PIECE_BYTES):
        yield piece.cpu().numpy()
