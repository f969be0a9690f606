"""Peak memory of the log-prob loss: tiles of tokens and vocabulary against whole logits.

Equal on both sides: hidden states N x D and head V x D in FP32, both with gradients, the same targets; the loss is minus the mean
log-prob, and its backward. Each measurement is a fresh process; its value is the process's largest resident set, Python and torch
(some 250 MB) included. "Full logits" is what most trainers do: logits, log_softmax, gather, backward by autograd.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from benchmarks.pairs import Contest, Measurement
from r1_lightning.functional.logprobs import linear_token_logprobs, token_logprobs

if TYPE_CHECKING:  # it imports transformers, which the measured processes do without
    from benchmarks.setting import World

ROOT = Path(__file__).resolve().parents[1]
KIB_PER_MB = 1000 * 1000 / 1024


def contest(world: World) -> Contest:
    """Peak MB of one forward and backward."""
    tokens, vocabulary, width = world.size.loss_shape
    return Contest(
        work=f"memory of the loss, {tokens:,} tokens, V = {vocabulary:,}, D = {width}",
        unit="MB",
        opponent="full logits",
        ours={"tiles": _in_a_process("tiles", world.size.loss_shape)},
        theirs={"full logits": _in_a_process("full", world.size.loss_shape)},
    )


def _in_a_process(side: str, shape: tuple[int, int, int]) -> Measurement:
    def measure() -> float:
        command = [sys.executable, "-m", "benchmarks.memory", side, *map(str, shape)]
        done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
        return float(done.stdout)

    return measure


def main(side: str, tokens: int, vocabulary: int, width: int) -> float:
    """Run one side in this process; returns its peak resident set in MB."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(tokens, width, generator=generator).requires_grad_()
    head = torch.randn(vocabulary, width, generator=generator).mul_(width**-0.5).requires_grad_()
    targets = torch.randint(vocabulary, (tokens,), generator=generator)
    if side == "tiles":
        logprobs = linear_token_logprobs(hidden, head, targets)[0]
    else:
        logprobs = token_logprobs(hidden @ head.T, targets, 1.0)
    (-logprobs.mean()).backward()
    assert hidden.grad is not None and head.grad is not None
    return peak_mb()


def peak_mb() -> float:
    """The largest resident set of this process (Linux). Not `ru_maxrss`, in which a child begins with its parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / KIB_PER_MB


if __name__ == "__main__":
    print(main(sys.argv[1], *map(int, sys.argv[2:5])))
