"""Tensors from one process to others of the same machine, one at a time: no file, and no second copy of the whole.

A sampling engine has the model in processes of its own and needs the trainer's weights after every update. Here the trainer serves
its tensors on a Unix socket, in a folder that only this user can open, and each worker reads them in order:

    length of header (8 bytes) | header (JSON: name, dtype, shape) | the numbers | ... | length 0: the end

Both sides hold one tensor more than they had. A stream that stops before its end raises on both sides.
"""

from __future__ import annotations

import json
import math
import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread
from typing import Any

import torch
from torch import Tensor

LENGTH = struct.Struct("<Q")
LONGEST_HEADER = 2**16  # bytes
POLL_S = 0.1  # how often the server looks whether nobody needs it any more
SILENCE_S = 600.0  # after which a reader or a writer that does not move is given up

Tensors = Mapping[str, Callable[[], Tensor]]  # name -> the tensor, made when it is needed


@contextmanager
def serving(tensors: Tensors) -> Iterator[str]:
    """Serve `tensors` until the block ends, to any number of readers one after another; yields the address for `received`.

    An error in making or sending a tensor is raised at the end of the block, in place of the reader's.
    """
    ended, errors = Event(), []
    with TemporaryDirectory(prefix="r1_lightning_weights_") as folder, socket.socket(socket.AF_UNIX) as listener:
        address = str(Path(folder) / "weights")
        listener.bind(address)
        listener.listen()
        listener.settimeout(POLL_S)

        def serve() -> None:
            while not ended.is_set():
                try:
                    reader, _ = listener.accept()
                except TimeoutError:
                    continue
                with reader:
                    reader.settimeout(SILENCE_S)
                    try:
                        _send(tensors, reader)
                    except Exception as error:  # the reader sees the end of the stream
                        errors.append(error)

        thread = Thread(target=serve, name="weights", daemon=True)
        thread.start()
        try:
            yield address
        finally:
            ended.set()
            thread.join()
            if errors and not isinstance(errors[0], BrokenPipeError | ConnectionResetError):
                raise errors[0]


@torch.no_grad()
def _send(tensors: Tensors, reader: socket.socket) -> None:
    for name, make in tensors.items():
        tensor = make().detach().to("cpu").contiguous()
        header = json.dumps([name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)]).encode()
        reader.sendall(LENGTH.pack(len(header)) + header)
        reader.sendall(bytes_of(tensor))
    reader.sendall(LENGTH.pack(0))


def received(address: str) -> Iterator[tuple[str, Tensor]]:
    """Yield (name, tensor on the CPU) as they come; each tensor has memory of its own. EOFError if the stream stops short."""
    with socket.socket(socket.AF_UNIX) as stream:
        stream.settimeout(SILENCE_S)
        stream.connect(address)
        while length := LENGTH.unpack(_read(stream, bytearray(LENGTH.size)))[0]:
            if length > LONGEST_HEADER:
                raise ValueError(f"a header of {length} bytes; at most {LONGEST_HEADER} are read")
            name, dtype, shape = json.loads(bytes(_read(stream, bytearray(length))))
            tensor = torch.empty(shape, dtype=getattr(torch, dtype))
            if math.prod(shape):
                _read(stream, bytes_of(tensor))
            yield name, tensor


def bytes_of(tensor: Tensor) -> memoryview:
    """The memory of a contiguous tensor on the CPU, byte by byte."""
    numbers: Any = tensor.reshape(-1).view(torch.uint8).numpy()
    return memoryview(numbers)


def _read(stream: socket.socket, into: bytearray | memoryview) -> bytearray | memoryview:
    """Fill `into` from the stream and return it."""
    view = memoryview(into)
    while view:
        count = stream.recv_into(view)
        if not count:
            raise EOFError("the weights stopped before their end")
        view = view[count:]
    return into
