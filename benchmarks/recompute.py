"""Activation recompute (`trainer.recompute=true`): what it saves and what it costs: `python benchmarks/recompute.py`.

A training step of our backbone (forward, log-prob of every token, backward; no optimizer), with each block's activations kept and
with each block's forward run again in the backward. Both give the same gradients, bit for bit. Seconds are measured in one
process, alternately: kept, recomputed, kept, recomputed. Memory is the largest resident set of a fresh process that takes one step,
Python and torch (some 310 MB) included.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the checkout, installed or not

import torch

from benchmarks.memory import peak_mb
from r1_lightning.model.backbone import DeepSeekBackbone
from r1_lightning.model.config import ModelConfig
from r1_lightning.types.tensors import TokenBatch

ROOT = Path(__file__).resolve().parents[1]
VOCABULARY = 512
EXPERTS = {"n_routed_experts": 8, "n_shared_experts": 1, "n_activated_experts": 2}
MLA = {"qk_nope_head_dim": 24, "qk_rope_head_dim": 8, "v_head_dim": 32}  # as wide as those of configs/model/tiny.yaml


@dataclass(frozen=True)
class Work:
    """A model of `layers` layers, the first dense and the others with experts, and one step of it: `rows` of `tokens`."""

    width: int
    layers: int
    rows: int
    tokens: int

    def backbone(self, recompute: bool) -> DeepSeekBackbone:
        """The model with weights of a seed."""
        width = self.width
        ranks = {"q_lora_rank": width // 2, "kv_lora_rank": width // 2, "n_heads": width // 32}
        sizes = {"d_model": width, "n_layers": self.layers, "d_ff_dense": 2 * width, "d_ff_expert": width // 2}
        fields: dict[str, Any] = {"vocab_size": VOCABULARY, "n_dense_layers": 1, "mtp_depth": 0, **MLA, **EXPERTS}
        model = DeepSeekBackbone(ModelConfig(**fields, **ranks, **sizes, max_positions=self.tokens))
        if recompute:
            model.recompute_blocks()
        return model


WORKS = {"miniature": Work(128, 4, 42, 96), "wider": Work(512, 8, 4, 256), "long": Work(512, 8, 1, 2048)}


def step(model: DeepSeekBackbone, work: Work) -> float:
    """Take one step with fresh gradients; returns its seconds."""
    model.zero_grad(set_to_none=True)
    tokens = torch.randint(VOCABULARY, (work.rows, work.tokens), generator=torch.Generator().manual_seed(0))
    start_s = time.perf_counter()
    hidden = model.hidden(TokenBatch.of_whole_rows(tokens)).hidden
    logprobs, _ = model.token_logprobs(hidden.flatten(0, 1), tokens.flatten())
    (-logprobs.mean()).backward()
    return time.perf_counter() - start_s


def peak(name: str, recompute: bool) -> float:
    """Peak MB of one step in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.recompute", "step", name, str(int(recompute))]
    return float(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout)


def measure(names: Sequence[str], pairs: int) -> list[dict[str, Any]]:
    """A row for each work: peak MB and median seconds of both sides, and the median ratio of the pairs with its range."""
    found = []
    for name in names:
        work, seconds = WORKS[name], []
        sides = [work.backbone(recompute) for recompute in (False, True)]
        for turn in range(pairs + 1):
            pair = [step(model, work) for model in sides]
            seconds += [pair] if turn else []  # the first is a warm-up
        ratios = [recomputed / kept for kept, recomputed in seconds]
        row: dict[str, Any] = {
            "work": name,
            "width": work.width,
            "layers": work.layers,
            "rows": work.rows,
            "tokens": work.tokens,
        }
        row |= {f"{side}_s": round(statistics.median(all_of_it), 3) for side, all_of_it in
                zip(("kept", "recomputed"), zip(*seconds, strict=True), strict=True)}  # fmt: skip
        row |= {"time_ratio": round(statistics.median(ratios), 2)}
        row |= {"least_ratio": round(min(ratios), 2), "most_ratio": round(max(ratios), 2)}
        row |= {"kept_mb": round(peak(name, False)), "recomputed_mb": round(peak(name, True))}
        found.append(row)
        print(", ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python benchmarks/recompute.py", description=__doc__)
    parser.add_argument("--pairs", type=int, default=5, help="pairs of seconds (%(default)s)")
    parser.add_argument("--only", choices=tuple(WORKS), nargs="+", default=list(WORKS), help="these works")
    parser.add_argument("--out", type=Path, help="a CSV file for the rows")
    options = parser.parse_args(arguments)
    if options.pairs < 1:
        parser.error(f"--pairs {options.pairs} is not allowed: at least 1")
    load = os.getloadavg()[0]
    rows = measure(options.only, options.pairs)
    if options.out:
        with options.out.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    threads = torch.get_num_threads()
    print(f"load before: {load:.1f}; {os.cpu_count()} processors, {threads} torch threads, torch {torch.__version__}")
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["step"]:
        asked = WORKS[sys.argv[2]]
        step(asked.backbone(recompute=sys.argv[3] == "1"), asked)
        print(peak_mb())
    else:
        sys.exit(main())
