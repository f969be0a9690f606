"""A streamed safetensors file: the library's own bytes, with one tensor at a time in memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from r1_lightning.artefacts import tensor_file
from r1_lightning.artefacts.tensor_file import TYPES, Streamed, write_tensors
from r1_lightning.types.errors import InvalidInput
from tests.support.memory import LiveTensors

FORMAT = {"format": "pt"}


def of_every_type() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {f"{name}.{i}": (10 * torch.randn(3, 2 + i)).to(dtype) for i in (0, 1) for dtype, name in TYPES.items()}


def streamed(tensors: dict[str, Tensor]) -> dict[str, Streamed]:
    return {name: Streamed.of(tensor) for name, tensor in tensors.items()}


@pytest.mark.parametrize("tensors", [of_every_type(), {"scalar": torch.tensor(2.5), "é": torch.zeros(0, 4)}, {}])
def test_the_bytes_are_the_library_s(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    write_tensors(tmp_path / "ours", streamed(tensors), FORMAT)
    save_file(tensors, tmp_path / "theirs", metadata=FORMAT)
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_a_view_that_is_not_contiguous_is_written_as_it_looks(tmp_path: Path) -> None:
    turned = torch.arange(6.0).view(2, 3).T
    write_tensors(tmp_path / "x", streamed({"turned": turned}), FORMAT)
    assert load_file(tmp_path / "x")["turned"].tolist() == [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]


def test_one_tensor_is_in_memory_at_a_time(tmp_path: Path) -> None:
    """20 tensors of 4,000 bytes, made when they are written."""
    entries = {f"{i}": Streamed(torch.float32, (1000,), lambda i=i: torch.full((1000,), float(i))) for i in range(20)}
    with LiveTensors() as live:
        write_tensors(tmp_path / "x", entries, FORMAT)
    assert live.peak <= 2 * 4000  # the last one lives until the next is there
    assert {name: tensor[0].item() for name, tensor in load_file(tmp_path / "x").items()} == {
        f"{i}": float(i) for i in range(20)
    }


def test_another_device_s_tensor_comes_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """10 bytes in pieces of 4: 4, 4 and 2."""

    class Elsewhere(torch.Tensor):
        @property
        def device(self) -> torch.device:
            return torch.device("cuda")

    monkeypatch.setattr(tensor_file, "PIECE_BYTES", 4)
    pieces = [bytes(piece) for piece in tensor_file._pieces(torch.arange(10).byte().as_subclass(Elsewhere))]
    assert pieces == [bytes([0, 1, 2, 3]), bytes([4, 5, 6, 7]), bytes([8, 9])]


def test_a_tensor_that_is_not_as_announced_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"w is torch.float32 \(3,\), announced"):
        write_tensors(tmp_path / "x", {"w": Streamed(torch.float32, (2,), lambda: torch.zeros(3))}, FORMAT)


def test_a_type_the_format_lacks_names_the_tensor(tmp_path: Path) -> None:
    tensors = streamed({"a": torch.zeros(2), "b.phase": torch.zeros(2, dtype=torch.complex64)})
    with pytest.raises(
        InvalidInput, match=r"type of tensor b\.phase='torch\.complex64' is not allowed: it must be one of torch"
    ):
        write_tensors(tmp_path / "ours", tensors, FORMAT)
    assert not (tmp_path / "ours").exists()
