"""Reading a checkpoint: what goes into the model is never whole in the memory of the host, and nothing stays with the file."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from r1_lightning.artefacts.checkpoint_file import stream
from r1_lightning.stages.checkpoint_reading import MappedCheckpoints

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
MIB = 2**20
LARGE = 4 * MIB  # elements: 16 MiB in FP32


def saved(folder: Path) -> Path:
    """Weights of 16 MiB and two moments of 16 MiB each, a step's number, and a rollout in flight."""
    moments = {"exp_avg": torch.full((LARGE,), 2.0), "exp_avg_sq": torch.full((LARGE,), 3.0), "step": torch.tensor(7.0)}
    state: dict[str, Any] = {
        "state_dict": {"weight": torch.ones(LARGE)},
        "optimizer_states": [{"state": {0: moments}, "param_groups": [{"lr": 0.1, "params": [0]}]}],
        "loops": {"loader": [{"ids": torch.arange(5)}, "text"]},
        "global_step": 7,
    }
    stream(state, folder / "last.ckpt")
    return folder / "last.ckpt"


def anonymous() -> int:
    """Bytes of this process's memory that no file stands behind."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) * 1024


def is_mapped(tensor: Tensor, path: Path) -> bool:
    """True if the numbers lie in a mapping of the file at `path`."""
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        first, last = (int(number, 16) for number in line.split()[0].split("-"))
        if first <= tensor.data_ptr() < last:
            return line.endswith(str(path))
    raise AssertionError("no mapping holds the tensor")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("device", "read"), [(GPU, 0), (CPU, 32)])
def test_what_is_copied_elsewhere_is_mapped(tmp_path: Path, device: torch.device, read: int) -> None:
    """On a GPU weights and moments are; on the CPU the moments stay where they are read, 32 MiB, and the weights are copied."""
    path = saved(tmp_path)
    gc.collect()
    before = anonymous()
    state = MappedCheckpoints(device).load_checkpoint(path, weights_only=True)
    weight, moments = state["state_dict"]["weight"], state["optimizer_states"][0]["state"][0]
    total = sum(float(tensor.sum()) for tensor in (weight, moments["exp_avg"], moments["exp_avg_sq"]))
    assert total == LARGE * (1 + 2 + 3)  # all pages are there now
    assert anonymous() - before < (read + 4) * MIB
    mapped = [id(leaf) for leaf in tree_leaves(state) if isinstance(leaf, Tensor) and is_mapped(leaf, path)]
    copied = [weight] if device == CPU else [weight, moments["exp_avg"], moments["exp_avg_sq"]]
    assert mapped == [id(tensor) for tensor in copied]


def test_all_of_the_state_is_there(tmp_path: Path) -> None:
    path = saved(tmp_path)
    found = MappedCheckpoints(GPU).load_checkpoint(path)
    whole = torch.load(path, weights_only=True)
    assert found.keys() == whole.keys() and found["global_step"] == 7
    for one, other in zip(tree_leaves(found), tree_leaves(whole), strict=True):
        assert torch.equal(one, other) if isinstance(one, Tensor) else one == other


def test_a_file_with_code_is_refused(tmp_path: Path) -> None:
    """Also where the caller would allow it."""
    torch.save({"state_dict": {}, "path": Path("x")}, tmp_path / "last.ckpt")
    with pytest.raises(UnpicklingError):
        MappedCheckpoints(CPU).load_checkpoint(tmp_path / "last.ckpt", weights_only=False)
