"""Weights: exact round trip, shared tensors, and loading all or nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from r1_lightning.artefacts.weights import (
    load_tensors,
    load_weights,
    opened,
    save_tensors,
    save_weights,
    stored_rows,
    stored_shapes,
)
from r1_lightning.types.errors import InvalidInput
from tests.support.memory import LiveTensors


class Tied(nn.Module):
    def __init__(self, width: int = 4, tied: bool = True) -> None:
        super().__init__()
        self.embedding = nn.Embedding(6, width)
        self.head = nn.Linear(width, 6, bias=False)
        if tied:
            self.head.weight = self.embedding.weight
        self.register_buffer("expert_bias", torch.randn(3))


def _same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize("tied", [True, False])
def test_round_trip_is_exact(tmp_path: Path, tied: bool) -> None:
    source, target = Tied(tied=tied), Tied(tied=tied)
    save_weights(source, tmp_path / "w.safetensors")
    assert not _same(source, target)
    load_weights(target, tmp_path / "w.safetensors")
    assert _same(source, target)
    assert ("head.weight" in load_file(tmp_path / "w.safetensors")) is not tied  # a shared tensor is written once
    assert (target.head.weight is target.embedding.weight) is tied


def test_views_of_one_storage_are_not_taken_for_one_tensor(tmp_path: Path) -> None:
    source, target = nn.Module(), nn.Module()
    both = torch.arange(4.0)
    source.a, source.b = nn.Parameter(both[:2]), nn.Parameter(both[2:])
    target.a, target.b = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
    save_weights(source, tmp_path / "w.safetensors")
    load_weights(target, tmp_path / "w.safetensors")
    assert target.a.tolist() == [0.0, 1.0] and target.b.tolist() == [2.0, 3.0]


def _refused(module: nn.Module, path: Path) -> str:
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with pytest.raises(InvalidInput) as caught:
        load_weights(module, path)
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items()), "half loaded"
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    return str(caught.value)


def test_missing_truncated_and_damaged_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    assert "no such file" in _refused(Tied(), path)
    save_weights(Tied(), path)
    whole = path.read_bytes()
    for size in (0, 4, 60, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert "truncated or damaged" in _refused(Tied(), path)


def test_another_architecture_names_the_first_difference_with_both_shapes(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(Tied(width=4), path)
    message = _refused(Tied(width=5), path)
    assert "another architecture; embedding.weight is 6 x 4 in the file and 6 x 5 in this model" in message
    message = _refused(Tied(tied=False), path)
    assert "head.weight is absent in the file and 6 x 4 in this model" in message


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, which Linux has")
def test_a_full_disk_is_one_line_and_keeps_the_old_weights(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(Tied(), path)
    before = path.read_bytes()
    (tmp_path / f".{path.name}.{os.getpid()}.tmp").symlink_to("/dev/full")
    with pytest.raises(InvalidInput, match="the disk is full"):
        save_weights(Tied(), path)
    assert path.read_bytes() == before and [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_nothing_of_the_size_of_the_model_is_made(tmp_path: Path) -> None:
    """100 tensors of 40 KB each: neither saving nor loading makes more than one of them."""
    model = nn.Sequential(*(nn.Linear(100, 100, bias=False) for _ in range(100)))
    one = 100 * 100 * 4
    with LiveTensors(model.parameters()) as saving:
        save_weights(model, tmp_path / "w.safetensors")
    assert saving.peak < one
    with LiveTensors(model.parameters()) as loading:
        load_weights(model, tmp_path / "w.safetensors")
    assert loading.peak <= 2 * one


def test_a_path_below_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput, match="a part of its path is a file"):
        save_weights(Tied(), tmp_path / "file" / "w.safetensors")


def test_tensors_are_loaded_by_the_names_of_the_file(tmp_path: Path) -> None:
    save_weights(Tied(), tmp_path / "w.safetensors")
    found = load_file(tmp_path / "w.safetensors")
    wanted = {name: torch.zeros_like(tensor) for name, tensor in found.items()}
    load_tensors(wanted, tmp_path / "w.safetensors")
    assert all(torch.equal(tensor, found[name]) for name, tensor in wanted.items())
    with pytest.raises(InvalidInput, match=r"embedding\.weight is 6 x 4 in the file and absent in this model"):
        load_tensors({"expert_bias": torch.zeros(3)}, tmp_path / "w.safetensors")


def test_text_in_the_header_comes_back_beside_the_format(tmp_path: Path) -> None:
    save_tensors({"x": torch.arange(3)}, tmp_path / "t.safetensors", {"sha256": "abc"})
    with opened(tmp_path / "t.safetensors") as file:
        assert file.metadata() == {"format": "pt", "sha256": "abc"} and file.get_tensor("x").tolist() == [0, 1, 2]


def test_shapes_are_read_off_the_header(tmp_path: Path) -> None:
    save_weights(Tied(), tmp_path / "w.safetensors")
    assert stored_shapes(tmp_path / "w.safetensors") == {"embedding.weight": (6, 4), "expert_bias": (3,)}
    assert stored_shapes(tmp_path / "absent") == {} and stored_rows(tmp_path / "w.safetensors", "embedding.weight") == 6
