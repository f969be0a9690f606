"""Weights between two processes: all arrive, one at a time, and a stream that stops short is noticed on both sides."""

from __future__ import annotations

import multiprocessing
import os
import socket
import stat
from pathlib import Path
from threading import Thread

import pytest
import torch
from torch import Tensor

from r1_lightning.rollout import weight_stream
from r1_lightning.rollout.weight_stream import LENGTH, LONGEST_HEADER, Tensors, received, serving

WEIGHTS = {
    "a.weight": torch.arange(6.0).view(2, 3).T,  # not contiguous
    "b": torch.tensor([[1.5, -2.0]], dtype=torch.bfloat16),
    "scalar": torch.tensor(7.25, dtype=torch.float64),
    "counts": torch.tensor([2**40, -1]),
    "nothing": torch.zeros(0, 4),
    "c.weight": torch.randn(300, 500, generator=torch.Generator().manual_seed(0)),  # more than a socket holds at once
}


def given(weights: dict[str, Tensor]) -> Tensors:
    return {name: lambda tensor=tensor: tensor for name, tensor in weights.items()}


def test_tensors_arrive_as_they_are_and_in_their_order() -> None:
    with serving(given(WEIGHTS)) as address:
        found = dict(received(address))
    assert list(found) == list(WEIGHTS)
    for name, tensor in WEIGHTS.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor)


def test_any_number_of_readers_get_all() -> None:
    with serving(given(WEIGHTS)) as address:
        first, second = dict(received(address)), dict(received(address))
    assert all(torch.equal(first[name], second[name]) for name in WEIGHTS)
    assert first["b"].data_ptr() != second["b"].data_ptr()


def test_at_most_one_tensor_more_is_held_than_the_reader_asks_for() -> None:
    """Tensors of 4 MB, far more than a socket buffers: the next is made when the one before is being read, never earlier."""
    asked: list[int] = []

    def make(number: int) -> Tensor:
        asked.append(number)
        return torch.full((2**20,), float(number))

    with serving({str(number): lambda number=number: make(number) for number in range(5)}) as address:
        for count, (name, tensor) in enumerate(received(address)):
            assert name == str(count) and float(tensor[-1]) == count
            assert len(asked) <= count + 2
    assert asked == [0, 1, 2, 3, 4]


def test_only_this_user_can_open_it_and_nothing_is_left() -> None:
    with serving(given(WEIGHTS)) as address:
        folder = Path(address).parent
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700 and folder.stat().st_uid == os.getuid()
    assert not folder.exists()


def test_a_tensor_that_cannot_be_made_ends_both_sides() -> None:
    def broken() -> Tensor:
        raise KeyError("gone")

    seen: list[str] = []

    def read(address: str) -> None:
        for name, _ in received(address):
            seen.append(name)

    served = pytest.raises(KeyError, match="gone")
    with (
        served,
        serving({**given(WEIGHTS), "d": broken}) as address,
        pytest.raises(EOFError, match="stopped before their end"),
    ):
        read(address)
    assert seen == list(WEIGHTS)


def test_a_reader_that_leaves_early_does_not_hold_the_server() -> None:
    with serving({**given(WEIGHTS), **{str(n): lambda: torch.zeros(2**20) for n in range(4)}}) as address:
        assert next(received(address))[0] == "a.weight"


def test_nobody_need_come() -> None:
    with serving(given(WEIGHTS)) as address:
        assert Path(address).exists()
    assert not Path(address).exists()


def _read_in_another_process(address: str, pipe: multiprocessing.connection.Connection) -> None:
    pipe.send([(name, float(tensor.double().sum())) for name, tensor in received(address)])


def test_another_process_reads_them() -> None:
    ours, theirs = multiprocessing.Pipe()
    with serving(given(WEIGHTS)) as address:
        reader = multiprocessing.get_context("fork").Process(target=_read_in_another_process, args=(address, theirs))
        reader.start()
        assert ours.poll(30)
        found = ours.recv()
        reader.join()
    assert found == [(name, float(tensor.double().sum())) for name, tensor in WEIGHTS.items()]


def test_a_header_out_of_bounds_is_refused(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "bad"))
    listener.listen()

    def serve() -> None:
        with listener, listener.accept()[0] as reader:
            reader.sendall(LENGTH.pack(LONGEST_HEADER + 1))

    thread = Thread(target=serve)
    thread.start()
    with pytest.raises(ValueError, match=f"a header of {LONGEST_HEADER + 1} bytes"):
        next(received(str(tmp_path / "bad")))
    thread.join()


def test_a_silent_server_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_stream, "SILENCE_S", 0.05)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "silent"))
        listener.listen()
        with pytest.raises(TimeoutError):
            next(received(str(tmp_path / "silent")))
