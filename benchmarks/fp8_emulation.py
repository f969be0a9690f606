"""What emulated FP8 costs: a training step with `precision=fp8_emulated` beside one in BF16: `python benchmarks/fp8_emulation.py`.

A step of our backbone (forward, log-prob of every token, backward; no optimizer), at the sizes of `benchmarks/recompute.py`, or a
rollout of the miniature (--only sampling), in one process, alternately: BF16, FP8, BF16, FP8. The ratio is taken within each pair.
It says how long a study on a CPU takes, and nothing about FP8 on a GPU.
"""

from __future__ import annotations

import argparse
import functools
import os
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the checkout, installed or not

import torch

from benchmarks.recompute import WORKS, step
from r1_lightning.model.backbone import DeepSeekBackbone
from r1_lightning.model.fp8_precision import FP8Precision
from r1_lightning.model.precision import PlainPrecision
from r1_lightning.rollout.groups import rollout_keys
from r1_lightning.rollout.sampler import Sampler, SamplerSettings, SamplingConfig

SAMPLING, PROMPTS, GROUP, NEW_TOKENS = "sampling", 16, 16, 24  # a rollout of the miniature's size: rows that never end
NO_END = -1


def rollout(model: DeepSeekBackbone) -> float:
    """Return the seconds of one rollout."""
    settings = SamplerSettings(SamplingConfig(max_new_tokens=NEW_TOKENS), eos_ids=[NO_END], pad_id=0, seed=0)
    start_s = time.perf_counter()
    Sampler(model, settings)([list(range(1, 13))] * PROMPTS, GROUP, rollout_keys(0, PROMPTS, GROUP))
    return time.perf_counter() - start_s


def measure(name: str, pairs: int) -> str:
    """Return a line: median seconds of both sides, and the median ratio of the pairs with its range."""
    work = WORKS["miniature" if name == SAMPLING else name]
    config = work.backbone(recompute=False).config
    sides = [DeepSeekBackbone(config, precision) for precision in (PlainPrecision("bf16"), FP8Precision("emulate"))]
    run = rollout if name == SAMPLING else functools.partial(step, work=work)
    seconds = [[run(model) for model in sides] for _ in range(pairs + 1)][1:]  # the first is a warm-up
    bf16, fp8 = (statistics.median(side) for side in zip(*seconds, strict=True))
    ratios = [second / first for first, second in seconds]
    spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    return f"{name}: BF16 {bf16:.2f} s, FP8 emulated {fp8:.2f} s, ratio {spread}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python benchmarks/fp8_emulation.py", description=__doc__)
    parser.add_argument("--pairs", type=int, default=5, help="pairs of steps (%(default)s)")
    parser.add_argument("--only", choices=(*WORKS, SAMPLING), nargs="+", default=[*WORKS, SAMPLING], help="these works")
    options = parser.parse_args(arguments)
    if options.pairs < 1:
        parser.error(f"--pairs {options.pairs} is not allowed: at least 1")
    print(f"{torch.get_num_threads()} threads, load before {os.getloadavg()[0]:.1f}", flush=True)
    for name in options.only:
        print(measure(name, options.pairs), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
