"""How long a checkpoint takes to load: `python benchmarks/loading.py FOLDER` (a folder in HuggingFace's form).

Three things take turns (A B C A B C), each once before anything counts: `r1_lightning.load`, reading the bytes of the weight files,
and transformers' `from_pretrained`. Ours copies every weight into memory of its own, which training needs, and looks for NaN;
transformers maps the file and leaves the reading to the first use, so a sum over its weights is a fourth column. `--busy N` adds
N processes that compute beside it. What counts is the ratio of ours to reading the files, within each round (goal: at most 2).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the checkout, installed or not

import torch

import r1_lightning as r1
from benchmarks.busy import busy_processes

GOAL = 2.0


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """Do `work` once; return how long it took, and its result."""
    start_s = time.perf_counter()
    result = work()
    return time.perf_counter() - start_s, result


def read_bytes(folder: Path) -> None:
    """Read every weight file of `folder` into memory, one after the other."""
    for path in sorted(folder.glob("*.safetensors")):
        path.read_bytes()


@torch.no_grad()
def one_round(folder: Path) -> dict[str, float]:
    """Seconds of each piece of work."""
    from transformers import AutoModelForCausalLM

    ours_s, model = seconds(lambda: r1.load(folder))
    del model
    file_s, _ = seconds(lambda: read_bytes(folder))
    theirs_s, model = seconds(lambda: AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32))
    touched_s, _ = seconds(lambda: [float(weight.sum()) for weight in model.parameters()])
    return {"ours": ours_s, "file": file_s, "transformers": theirs_s, "transformers, read": theirs_s + touched_s}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the medians and the ratio."""
    parser = argparse.ArgumentParser(description="How long a checkpoint takes to load.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--busy", type=int, default=0, help="processes that compute beside it")
    values = parser.parse_args(arguments)
    with busy_processes(values.busy):
        one_round(values.folder)  # imports, and the file into the system's cache
        rounds = [one_round(values.folder) for _ in range(values.rounds)]
    for name in rounds[0]:
        print(f"{name:<20} {statistics.median(measured[name] for measured in rounds):6.2f} s")
    ratios = [measured["ours"] / measured["file"] for measured in rounds]
    print(
        f"ours / file          {statistics.median(ratios):6.2f}   ({min(ratios):.2f} to {max(ratios):.2f}; goal {GOAL})"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
