"""Attention of packed rows, by the length of a row: `python benchmarks/attention.py memory` and `... time`.

`memory`: the largest resident set of a training step (forward, log-probs of every token, backward), Python and torch included, each
in a fresh process. The model has two layers, the second a mixture, and heads with queries of 24 and values of 16, as unequal as
DeepSeek-V3's (192 and 128). Rows hold one document, or documents of 1,024 tokens.

`time`: forward and backward of attention alone, the dense mask beside one kernel per document, alternately; it is where
`masked_attention.MOST_DENSE_TOKENS` comes from.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the checkout, installed or not

import torch
from torch import Tensor

from benchmarks.memory import peak_mb
from r1_lightning.model import masked_attention
from r1_lightning.model.backbone import DeepSeekBackbone
from r1_lightning.model.config import ModelConfig
from r1_lightning.model.masked_attention import DenseRows, DocumentRows
from r1_lightning.types.tensors import TokenBatch

ROOT = Path(__file__).resolve().parents[1]
# What a row holds: the length of its documents (None: one document).
SIDES: dict[str, int | None] = {"one document": None, "documents of 1,024": 1024, "dense mask": None}
LENGTHS = (4096, 8192, 16_384, 32_768)
MOST_DENSE = 8192  # a mask of 16,384 tokens and the weights of four heads take 11 GB a layer
# (tokens of a row, tokens of its documents)
TIMED = ((128, 32), (128, 128), (256, 32), (256, 256), (512, 32), (512, 512), (1024, 128), (1024, 1024), (2048, 2048))
TIMED_TOKENS, HEADS, WIDTH = 2048, 4, 32  # rows of 2,048 tokens in all; heads of configs/model/tiny.yaml


def model(length: int) -> DeepSeekBackbone:
    """A small model with every mechanism, for rows of `length` tokens."""
    mla = {"q_lora_rank": 64, "kv_lora_rank": 48, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16}
    experts = {"d_ff_expert": 64, "n_routed_experts": 8, "n_shared_experts": 1, "n_activated_experts": 2}
    sizes = {"vocab_size": 512, "d_model": 128, "n_layers": 2, "n_dense_layers": 1, "n_heads": HEADS, "d_ff_dense": 256}
    fields: dict[str, Any] = {**mla, **experts, **sizes, "mtp_depth": 0, "max_positions": length}
    return DeepSeekBackbone(ModelConfig(**fields))


def documents(rows: int, tokens: int, document_tokens: int) -> Tensor:
    """Ids of rows full of documents, rows x tokens."""
    return (torch.arange(tokens) // document_tokens + 1).expand(rows, tokens).contiguous()


def train_one(side: str, length: int) -> float:
    """Run one training step in this process; returns its peak resident set in MB."""
    if side == "dense mask":
        masked_attention.MOST_DENSE_TOKENS = length
    generator, ids = torch.Generator().manual_seed(0), documents(1, length, SIDES[side] or length)
    tokens = torch.randint(512, (1, length), generator=generator)
    places = torch.arange(length)[None] % (SIDES[side] or length)
    backbone = model(length)
    hidden = backbone.hidden(TokenBatch(tokens, places, ids)).hidden
    logprobs, _ = backbone.token_logprobs(hidden.flatten(0, 1), tokens.flatten())
    (-logprobs.mean()).backward()
    return peak_mb()


def peaks(lengths: Iterable[int] = LENGTHS, sides: Iterable[str] = SIDES) -> list[dict[str, Any]]:
    """Peak MB and seconds of the process by side and length."""
    rows = []
    for length in lengths:
        for side in sides:
            if side == "dense mask" and length > MOST_DENSE:
                continue
            start_s = time.perf_counter()
            command = [sys.executable, "-m", "benchmarks.attention", "step", side, str(length)]
            done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
            seconds = time.perf_counter() - start_s
            rows.append(
                {"side": side, "tokens": length, "peak_mb": round(float(done.stdout)), "seconds": round(seconds)}
            )
            print(f"{length:>6,} tokens, {side}: {rows[-1]['peak_mb']:,} MB, {seconds:.0f} s", flush=True)
    return rows


def seconds_of(kind: Any, number: torch.dtype, tokens: int, document_tokens: int) -> float:
    """Seconds of masks once and of attention forward and backward four times, as a model of four layers does."""
    ids = documents(TIMED_TOKENS // tokens, tokens, document_tokens)
    q, k, v = (torch.randn(*ids.shape, HEADS, WIDTH).requires_grad_() for _ in range(3))
    start_s = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=number == torch.bfloat16):
        rows = kind.of(ids)
        for _ in range(4):
            rows(q, k, v, WIDTH**-0.5).sum().backward()
    return time.perf_counter() - start_s


def times(rounds: int) -> list[dict[str, Any]]:
    """Median milliseconds of both kinds by type, length of rows and of documents, and the median ratio of the pairs."""
    found = []
    for number in (torch.float32, torch.bfloat16):
        for tokens, document_tokens in TIMED:
            pairs = []
            for turn in range(rounds + 1):
                pair = [1000 * seconds_of(kind, number, tokens, document_tokens) for kind in (DenseRows, DocumentRows)]
                pairs += [pair] if turn else []  # the first is a warm-up
            dense, by_document = (statistics.median(side) for side in zip(*pairs, strict=True))
            row = {"type": str(number).removeprefix("torch."), "row_tokens": tokens, "document_tokens": document_tokens}
            row |= {"dense_ms": round(dense, 1), "by_document_ms": round(by_document, 1)}
            found.append(row | {"dense_over_by_document": round(statistics.median(d / b for d, b in pairs), 2)})
            print(", ".join(f"{name} {value}" for name, value in found[-1].items()), flush=True)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python benchmarks/attention.py", description=__doc__)
    parser.add_argument("what", choices=("memory", "time"))
    parser.add_argument("--rounds", type=int, default=5, help="pairs of a time (%(default)s)")
    parser.add_argument("--out", type=Path, help="a CSV file for the rows")
    options = parser.parse_args(arguments)
    load = os.getloadavg()[0]
    rows = peaks() if options.what == "memory" else times(options.rounds)
    if options.out:
        with options.out.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    print(
        f"load before: {load:.1f}; {os.cpu_count()} processors, {torch.get_num_threads()} torch threads, torch {torch.__version__}"
    )
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["step"]:
        print(train_one(sys.argv[2], int(sys.argv[3])))
    else:
        sys.exit(main())
