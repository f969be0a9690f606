"""Sharded files: any number of processes reads what any other number wrote, and what is missing or damaged is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from r1_lightning.artefacts.shard_files import ShardFile, check_shards, load_shards, remove_older, save_shards
from r1_lightning.functional.shards import whole
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.processes import ONE, Processes
from tests.support.processes import in_processes

VALUES = {"wide": torch.arange(21.0).view(7, 3), "short": torch.tensor([5.0]), "half": torch.arange(4.0).bfloat16()}


def divided(processes: Processes, values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    if processes.count == 1:
        return {name: value.clone() for name, value in values.items()}
    mesh = init_device_mesh("cpu", (processes.count,))
    return {name: distribute_tensor(value, mesh, [Shard(0)]) for name, value in values.items()}


def write(processes: Processes, folder: Path) -> list[ShardFile]:
    return save_shards(divided(processes, VALUES), folder, processes)


def read(processes: Processes, folder: Path, files: list[ShardFile]) -> dict[str, torch.Tensor]:
    check_shards(folder, files, processes)
    wanted = divided(processes, {name: torch.full_like(value, -1) for name, value in VALUES.items()})
    load_shards(wanted, folder, files)
    return {name: whole(tensor) for name, tensor in wanted.items()}


def same(found: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(found[name], value) for name, value in VALUES.items())


def test_one_process_reads_what_it_wrote(tmp_path: Path) -> None:
    files = write(ONE, tmp_path)
    assert [item["file"] for item in files] == ["rank-0-of-1.safetensors"]
    assert same(read(ONE, tmp_path, files))


@pytest.mark.slow
def test_any_number_of_processes_reads_what_another_wrote(tmp_path: Path) -> None:
    """3 processes write: ranks 0, 1, 2 hold 3, 3, 1 of 7 rows, and rank 0 alone the only row of `short`."""
    files = in_processes(3, write, tmp_path)[1]
    assert [item["file"] for item in files] == [f"rank-{rank}-of-3.safetensors" for rank in range(3)]
    assert same(read(ONE, tmp_path, files))
    for count in (2, 3):
        assert all(same(found) for found in in_processes(count, read, tmp_path, files))


def refusal(folder: Path, files: list[ShardFile]) -> str:
    with pytest.raises(InvalidInput) as refused:
        read(ONE, folder, files)
    return str(refused.value)


def test_a_file_that_is_missing_or_changed_is_named(tmp_path: Path) -> None:
    files = write(ONE, tmp_path)
    path = tmp_path / files[0]["file"]
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert "rank-0-of-1.safetensors' is not allowed: the file is truncated or damaged" in refusal(tmp_path, files)
    path.write_bytes(content[:-1])
    assert "truncated or damaged" in refusal(tmp_path, files)
    path.unlink()
    assert "rank-0-of-1.safetensors' is not allowed: the file is missing" in refusal(tmp_path, files)


def test_rows_that_nobody_wrote_and_other_shapes_are_named(tmp_path: Path) -> None:
    files = save_shards({"wide": VALUES["wide"], "half": VALUES["half"]}, tmp_path, ONE)
    with pytest.raises(InvalidInput, match=r"short.*1 of its rows are in none of the files"):
        load_shards({"short": torch.zeros(1)}, tmp_path, files)
    with pytest.raises(InvalidInput, match=r"wide.*2 of its rows are in none"):
        load_shards({"wide": torch.zeros(9, 3)}, tmp_path, files)
    with pytest.raises(InvalidInput, match=r"tensor wide=\(7, 3\) is not allowed: it must be \(7, 4\)"):
        load_shards({"wide": torch.zeros(7, 4)}, tmp_path, files)


def test_a_file_outside_of_the_folder_is_never_opened(tmp_path: Path) -> None:
    files = write(ONE, tmp_path / "inside")
    files[0]["file"] = f"../{files[0]['file']}"
    (tmp_path / "rank-0-of-1.safetensors").write_bytes(b"outside")
    assert same(read(ONE, tmp_path / "inside", files))


def test_older_folders_go_and_those_of_the_last_two_checkpoints_stay(tmp_path: Path) -> None:
    for number in (10, 20, 30, 40):
        (tmp_path / f"shards-{number}").mkdir()
    (tmp_path / "shards-own").mkdir()
    remove_older(tmp_path, "shards-", 35, 2)  # 40 is of a run that was killed before its checkpoint was whole
    assert {path.name for path in tmp_path.iterdir()} == {"shards-20", "shards-30", "shards-own"}
