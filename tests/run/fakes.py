"""Targets and a stage runner that need no training: what `run` is tested with."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from omegaconf import DictConfig
from torch import nn

from r1_lightning.artefacts import store
from r1_lightning.artefacts.store import Artefact
from r1_lightning.types.errors import require_int
from r1_lightning.types.text import Problem


@dataclass(frozen=True)
class FakeModel:
    vocab_size: int
    d_model: int
    rank: int | None = None

    def __post_init__(self) -> None:
        require_int("model.d_model", self.d_model, 1)


@dataclass(frozen=True)
class FakeRollout:
    group_size: int
    share: float = 0.5

    def __post_init__(self) -> None:
        require_int("group_size", self.group_size, 2)


class FakeTask:
    content_version = "1"

    def __init__(self, folder: str = "") -> None:
        self.folder = folder

    def train_problem(self, seed: int, index: int) -> Problem:
        return Problem(f"{seed}+{index}", str(seed + index), f"{seed}/{index}")

    def documents(self, seed: int, start: int, count: int) -> Iterator[str]:
        return iter([f"{seed} {start + number}" for number in range(count)])


class FakeReward:
    def __init__(self, name: str, kind: Literal["strict", "lenient"] = "strict") -> None:
        self.name, self.kind = name, kind


class FakeModule:
    content_version = "1"

    def __init__(self, max_steps: int, kl_coef: float = 0.0, policy: nn.Module | None = None) -> None:
        self.max_steps = max_steps


class FakeTrainer:
    def __init__(self, devices: int = 1) -> None:
        self.devices = devices


class FakeOptimizer:
    def __init__(
        self, params: object, lr: float | torch.Tensor = 1e-3, betas: tuple[float, float] = (0.9, 0.9)
    ) -> None:
        self.lr = lr


@dataclass
class Recorder:
    """A `run_stage` that notes its calls and leaves the files of a stage; `faults` are raised once, in order."""

    calls: list[tuple[str, Path, dict[str, Artefact], DictConfig]] = field(default_factory=list)
    faults: list[BaseException] = field(default_factory=list)

    def __call__(
        self, config: DictConfig, stage: str, folder: Path, inputs: dict[str, Artefact]
    ) -> Mapping[str, float]:
        self.calls.append((stage, folder, inputs, config))
        if self.faults:
            (folder / "checkpoints").mkdir(exist_ok=True)
            raise self.faults.pop(0)
        model = nn.Linear(int(config.model.d_model), 1)
        for source in inputs.values():
            store.load_weights(model, source.weights_path)
        store.save_weights(model, folder / store.WEIGHTS)
        store.write_text(folder / store.TABLE, f"table of {stage}\n")
        return {"eval/pass_at_1": 0.5}

    @property
    def stages(self) -> list[str]:
        return [stage for stage, *_ in self.calls]


def full_disk(folder: Path) -> OSError:
    return OSError(errno.ENOSPC, "No space left on device", str(folder / "checkpoints" / "last.ckpt"))
