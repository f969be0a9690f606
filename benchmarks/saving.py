"""How long training waits for its checkpoints: `python benchmarks/saving.py --rounds 5`.

Three runs take turns (A B C A B C), each once before anything counts: without checkpoints, with synchronous ones, and with
asynchronous ones (`trainer.checkpoint_async`). The model is a stack of matrices with AdamW, whose state is `--mb` MB (weights and
two moments); a step computes for some tenths of a second, and every `--every`-th saves. Two numbers count: the seconds that a save
keeps training waiting (in the callback's own hooks), and what it costs in all: the run's time beyond that of the one without, which
also holds what the thread takes from training's processor and memory. `--busy-disk` adds a process that writes and syncs.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the checkout, installed or not

import lightning as L
import torch
from torch import Tensor, nn

from r1_lightning.callbacks.checkpoint import ResumeCheckpoint

MB = 10**6
WIDTH = 1024  # of a matrix of 4.2 MB
STATES = 3  # weights and two moments
PIECE_BYTES = 64 * MB
KINDS = ("none", "sync", "async")


class Stack(L.LightningModule):
    """Matrices one after the other, on rows that are always the same."""

    def __init__(self, mb: int, rows: int) -> None:
        super().__init__()
        count = max(1, round(mb * MB / (STATES * 4 * WIDTH * WIDTH)))
        self.layers = nn.Sequential(*(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(count)))
        self.rows = rows

    def training_step(self, batch: Any, _: int) -> Tensor:
        loss: Tensor = self.layers(torch.ones(self.rows, WIDTH)).square().mean()
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-4, fused=True)


class Timed(ResumeCheckpoint):
    """Counts its saves and the seconds in its hooks."""

    waited_s, saves = 0.0, 0

    def _timed(self, hook: Callable[..., None], *given: Any) -> None:
        start_s = time.perf_counter()
        hook(*given)
        self.waited_s += time.perf_counter() - start_s

    def save(self, trainer: L.Trainer) -> None:
        super().save(trainer)
        self.saves += 1

    def on_train_batch_end(self, *given: Any) -> None:
        self._timed(super().on_train_batch_end, *given)

    def on_train_batch_start(self, *given: Any) -> None:
        self._timed(super().on_train_batch_start, *given)

    def on_train_end(self, *given: Any) -> None:
        self._timed(super().on_train_end, *given)


def run(kind: str, mb: int, steps: int, every: int, rows: int) -> tuple[float, float, int]:
    """Train once; returns its seconds, those that it waited for its checkpoints, and how many it saved."""
    with tempfile.TemporaryDirectory() as name:
        saver = Timed(Path(name) / "checkpoints", every if kind != "none" else steps, kind == "async")
        quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        trainer = L.Trainer(
            max_steps=steps, accelerator="cpu", callbacks=[saver], enable_model_summary=False, max_epochs=1, **quiet
        )
        start_s = time.perf_counter()
        trainer.fit(Stack(mb, rows), torch.utils.data.DataLoader(range(steps)))  # type: ignore[arg-type]
        return time.perf_counter() - start_s, saver.waited_s, saver.saves


def _keep_writing(folder: str) -> None:
    content = os.urandom(PIECE_BYTES)
    while True:
        with open(Path(folder) / "busy", "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())


@contextmanager
def busy_disk(wanted: bool) -> Iterator[None]:
    """A process beside this one writes and syncs within the block, if it is `wanted`."""
    if not wanted:
        yield
        return
    with tempfile.TemporaryDirectory() as folder:
        process = multiprocessing.Process(target=_keep_writing, args=(folder,), daemon=True)
        process.start()
        try:
            yield
        finally:
            process.kill()
            process.join()


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line per round and the medians."""
    parser = argparse.ArgumentParser(description="How long training waits for its checkpoints.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mb", type=int, default=50, help="of the state that is saved (%(default)s)")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--every", type=int, default=5)
    parser.add_argument("--rows", type=int, default=2048, help="of a step: how long it computes (%(default)s)")
    parser.add_argument("--busy-disk", action="store_true")
    options = parser.parse_args(arguments)
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    given = (options.mb, options.steps, options.every, options.rows)
    found: dict[str, list[float]] = {f"{what}, {kind}": [] for what in ("waits", "costs") for kind in KINDS[1:]}
    print(f"load {os.getloadavg()[0]:.1f}, {torch.get_num_threads()} threads")
    with busy_disk(options.busy_disk):
        for number in range(options.rounds + 1):
            none_s, _, _ = run("none", *given)
            line = f"a step {none_s / options.steps:.3f} s"
            for kind in KINDS[1:]:
                total_s, waited_s, saves = run(kind, *given)
                waits, costs = waited_s / saves, (total_s - none_s) / saves
                line += f"; {kind}: a save keeps waiting {waits:.3f} s and costs {costs:.3f} s"
                if number:
                    found[f"waits, {kind}"].append(waits)
                    found[f"costs, {kind}"].append(costs)
            print(line if number else f"warm-up: {line}", flush=True)
    for name, values in found.items():
        print(f"{name}: median {statistics.median(values):.3f} s ({min(values):.3f} to {max(values):.3f})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
